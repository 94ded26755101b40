"""Our bytes are those of the compressed-tensors library, which vLLM and transformers read them with."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationConfig, QuantizationScheme

from services.experts import quantize
from services.experts.quantize import Scheme

GROUP = 64
WEIGHT = np.random.default_rng(0).normal(0, 0.05, (96, 192)).astype(np.float32)


def as_torch(tensors: quantize.Tensors, scheme: Scheme) -> dict[str, torch.Tensor]:
    """As a checkpoint's types say."""
    held = {name: torch.from_numpy(array.copy()) for name, array in tensors.items()}
    if scheme == "fp8":
        held["weight"] = held["weight"].view(torch.float8_e4m3fn)
    if scheme == "int4":
        held["weight_scale"] = held["weight_scale"].view(torch.bfloat16).float()
    return held


def library(scheme: Scheme) -> tuple[Any, QuantizationScheme]:
    stated = quantize.settings(scheme, GROUP)
    told = {key: value for key, value in stated.items() if key != "quant_method"}
    config = QuantizationConfig.model_validate(told)
    assert config.format == quantize.NAMES[scheme]
    (group,) = config.config_groups.values()
    assert isinstance(group, QuantizationScheme)
    return BaseCompressor.get_value_from_registry(quantize.NAMES[scheme]), group


@pytest.mark.parametrize("scheme", quantize.SCHEMES)
def test_the_library_restores_what_we_restore(scheme: Scheme) -> None:
    compressor, group = library(scheme)
    tensors = quantize.quantized(WEIGHT, scheme, GROUP)
    restored = compressor.decompress(as_torch(tensors, scheme), group)["weight"].float().numpy()
    assert np.array_equal(restored, quantize.restored(tensors, scheme))
    assert (
        np.abs(restored - WEIGHT).mean()
        < {"fp8": 0.025, "int8": 0.01, "int4": 0.105}[scheme] * np.abs(WEIGHT).mean()
    )


@pytest.mark.parametrize("scheme", quantize.SCHEMES)
def test_the_library_makes_the_same_bytes_of_the_same_scales(scheme: Scheme) -> None:
    compressor, group = library(scheme)
    ours = as_torch(quantize.quantized(WEIGHT, scheme, GROUP), scheme)
    told = {"weight": torch.from_numpy(WEIGHT), "weight_scale": ours["weight_scale"]}
    theirs = compressor.compress(told, group)
    name = "weight_packed" if scheme == "int4" else "weight"
    kind = torch.int32 if scheme == "int4" else torch.uint8
    assert torch.equal(theirs[name].view(kind), ours[name].view(kind))


def test_fp8_bits_are_torchs() -> None:
    values = np.concatenate(
        [np.random.default_rng(1).normal(0, size, 50_000) for size in (1e-4, 1e-2, 1.0, 100.0)]
        + [np.array([0.0, 448.0, -448.0, 2.0**-9, 1.5 * 2.0**-9, 2.0**-10, 2.0**-6])]
    ).astype(np.float32).clip(-448, 448)  # fmt: skip
    bits = torch.from_numpy(values).to(torch.float8_e4m3fn).view(torch.uint8).numpy()
    assert np.array_equal(quantize.to_fp8(values), bits)
    halves = torch.from_numpy(values).bfloat16().view(torch.uint16).numpy()
    assert np.array_equal(quantize.to_bfloat16(values), halves)
