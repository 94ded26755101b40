"""A quantised folder as transformers computes it: its own restored weights in float32, and, where the format has it,
inputs of every quantised matrix rounded per token as an engine rounds them. The judge of `bench_quantize`.

vLLM's CPU kernels for quantised experts need AMX, which few hosts have; the numbers that an engine would multiply are
the same everywhere, and these are they.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.overrides import TorchFunctionMode
from transformers import AutoModelForCausalLM

from services.experts import quantize, safetensors_file
from services.experts.quantize import Scheme
from services.experts.quantized_files import Shard

Weights = dict[str, NDArray[np.float32]]


def restored_weights(folder: Path, scheme: Scheme) -> Weights:
    """Every tensor of the folder in float32, by the names of the unquantised model."""
    held: dict[str, NDArray[Any]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        shard = Shard(path, check=False)
        held |= {name: shard.array(name) for name in shard.entries}
    out: Weights = {}
    for name in held:
        if name.endswith(".weight_scale"):
            stem = name.removesuffix("weight_scale")
            parts = {key.removeprefix(stem): value for key, value in held.items() if key.startswith(stem)}
            out[f"{stem}weight"] = quantize.restored(parts, scheme)
        elif f"{name}_scale" not in held and "weight_packed" not in name and "weight_shape" not in name:
            array = held[name]
            out[name] = (
                quantize.from_bfloat16(array) if array.dtype == np.uint16 else array.astype(np.float32)
            )
    return out


def load(source: Path, weights: Weights) -> torch.nn.Module:
    """The model of `source` with these weights in place of its own, read by transformers as any checkpoint is."""
    with tempfile.TemporaryDirectory() as folder:
        config = json.loads((source / "config.json").read_text())
        (Path(folder) / "config.json").write_text(json.dumps(config | {"torch_dtype": "float32"}))
        safetensors_file.write(Path(folder) / "model.safetensors", weights.items())
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, experts_implementation="eager"
        )
    return model.eval()


class RoundedInputs(TorchFunctionMode):
    """Inputs of `F.linear` as 8-bit engines see them, wherever the matrix is one of attention or an FFN: all but the
    head and routers, which are told by their number of rows."""

    def __init__(self, scheme: Scheme, kept_rows: frozenset[int]) -> None:
        super().__init__()
        self._round: Callable[[torch.Tensor], torch.Tensor] = _fp8 if scheme == "fp8" else _int8
        self._kept_rows = kept_rows

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.nn.functional.linear and args[1].shape[0] not in self._kept_rows:
            args = (self._round(args[0]), *args[1:])
        return func(*args, **(kwargs or {}))


def _fp8(x: torch.Tensor) -> torch.Tensor:
    scale = x.abs().amax(-1, keepdim=True).clamp_min(1e-12) / quantize.FP8_LARGEST
    return (x / scale).to(torch.float8_e4m3fn).to(x.dtype) * scale


def _int8(x: torch.Tensor) -> torch.Tensor:
    scale = x.abs().amax(-1, keepdim=True).clamp_min(1e-12) / 127.0
    return (x / scale).round().clamp(-128, 127) * scale
