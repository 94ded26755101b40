"""Weights in 8 or 4 bits, in the compressed-tensors format that vLLM reads: what is kept of one matrix, and what the
model's config must say. Pure: arrays in, arrays out.

Rules: knows numpy and the format; no files (quantized_files.py), no model but the names of its matrices. Nothing is
calibrated: each matrix is rounded for itself ("round to nearest"), 4-bit groups with the scale that makes the smallest
squared error (as LLM Compressor's `mse` observer; data-free, so any size of model, matrix after matrix).

    fp8    e4m3, a scale per row; activations in fp8, a scale per token, made while serving
    int8   a scale per row; activations in int8 likewise
    int4   a scale per row and group of inputs, eight weights to an int32; activations stay as they are

tests/cluster/test_quantize.py holds the bytes against the compressed-tensors library.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError

Scheme = Literal["fp8", "int8", "int4"]
SCHEMES: tuple[Scheme, ...] = get_args(Scheme)
Array = NDArray[np.float32]
Tensors = dict[str, NDArray[Any]]

GROUPS = (128, 64, 32)
"""Inputs that share a scale in int4; vLLM's GPU kernels know these."""

FP8_LARGEST = 448.0
NAMES = {"fp8": "float-quantized", "int8": "int-quantized", "int4": "pack-quantized"}

_KEPT = re.compile(
    r"(^|\.)(embed_tokens|lm_head|wte|wpe)\.|norm|(^|\.)(gate|router|shared_expert_gate)\.weight$"
)
_SHRINK = np.linspace(1.0, 0.7, 13, dtype=np.float32)
"""Tried parts of the range that no value exceeds."""
_AT_ONCE = 1 << 15


def is_quantized(name: str, shape: tuple[int, ...]) -> bool:
    """Matrices of attention and FFNs, experts' too; embeddings, head, norms and routers stay as they are."""
    return name.endswith(".weight") and len(shape) == 2 and _KEPT.search(name) is None


def group_size(input_sizes: frozenset[int], wanted: int = 0) -> int:
    """The largest group that divides every matrix's inputs, or the wanted one. Raises ConfigError."""
    fits = [group for group in GROUPS if all(size % group == 0 for size in input_sizes)]
    if wanted and wanted not in fits:
        raise ConfigError(
            f"groups of {wanted} do not divide inputs of {_listed(input_sizes)}: "
            + (
                f"{_listed(fits)} would"
                if fits
                else "none that vLLM knows would; fp8 and int8 need no groups"
            )
        )
    if not fits:
        raise ConfigError(
            f"int4 needs groups of {_listed(GROUPS)}, and none divides inputs of {_listed(input_sizes)}; fp8 and int8 "
            "need no groups"
        )
    return wanted or fits[0]


def quantized(weight: Array, scheme: Scheme, group: int = 0) -> Tensors:
    """What replaces the matrix [out, in], by suffix of its name. fp8 as its bits (uint8), scales of int4 as the bits of
    bfloat16 (uint16)."""
    if not np.isfinite(weight).all():
        raise ConfigError("a weight is not a finite number")
    if scheme == "int4":
        return _int4(weight, group)
    largest = np.abs(weight).max(axis=1, keepdims=True)
    scale = np.maximum(largest / np.float32(FP8_LARGEST if scheme == "fp8" else 127.0), np.float32(1e-12))
    if scheme == "fp8":
        return {"weight": to_fp8(weight / scale), "weight_scale": scale}
    return {"weight": np.rint(weight / scale).clip(-128, 127).astype(np.int8), "weight_scale": scale}


def restored(tensors: Mapping[str, NDArray[Any]], scheme: Scheme) -> Array:
    """The matrix that an engine computes with."""
    if scheme != "int4":
        values = from_fp8(tensors["weight"]) if scheme == "fp8" else tensors["weight"].astype(np.float32)
        return values * tensors["weight_scale"]
    rows, columns = (int(size) for size in tensors["weight_shape"])
    shifts = np.arange(0, 32, 4, dtype=np.uint32)
    packed = tensors["weight_packed"].view(np.uint32)
    values = ((packed[:, :, None] >> shifts) & 15).astype(np.float32).reshape(rows, columns) - 8.0
    scale = from_bfloat16(tensors["weight_scale"])
    return (values.reshape(rows, scale.shape[1], -1) * scale[:, :, None]).reshape(rows, columns)


def settings(scheme: Scheme, group: int = 0) -> dict[str, object]:
    """`quantization_config` of the model's config.json."""
    bits = 4 if scheme == "int4" else 8
    kind = "float" if scheme == "fp8" else "int"
    weights = {
        "num_bits": bits, "type": kind, "symmetric": True, "dynamic": False, "observer": "minmax",
        "strategy": "group" if scheme == "int4" else "channel", "group_size": group if scheme == "int4" else None,
    }  # fmt: skip
    activations = {
        "num_bits": bits, "type": kind, "symmetric": True, "dynamic": True, "strategy": "token", "observer": None,
    }  # fmt: skip
    return {
        "quant_method": "compressed-tensors",
        "format": NAMES[scheme],
        "quantization_status": "compressed",
        "ignore": ["lm_head", "re:.*gate$", "re:.*router$"],
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "format": NAMES[scheme],
                "weights": weights,
                "input_activations": None if scheme == "int4" else activations,
                "output_activations": None,
            }
        },
    }


def bits_per_weight(scheme: Scheme, group: int = 0) -> float:
    """Of the matrices that are quantised, a row's scale in fp8 and int8 left out."""
    return 4 + 16 / group if scheme == "int4" else 8.0


def _int4(weight: Array, group: int) -> Tensors:
    rows, columns = weight.shape
    grouped = np.ascontiguousarray(weight, np.float32).reshape(-1, group)
    scale = np.empty(len(grouped), np.uint16)
    values = np.empty(grouped.shape, np.uint8)
    at_once = max(1, _AT_ONCE // group)
    for begin in range(0, len(grouped), at_once):  # a piece at a time, which the processor's cache holds
        piece = grouped[begin : begin + at_once]
        chosen = scale[begin : begin + at_once] = _best_scales(piece)
        values[begin : begin + at_once] = _rounded(piece, from_bfloat16(chosen)) + 8
    nibbles = values.reshape(rows, columns // 8, 8).astype(np.uint32)
    packed = np.bitwise_or.reduce(nibbles << np.arange(0, 32, 4, dtype=np.uint32), axis=2)
    return {
        "weight_packed": packed.view(np.int32),
        "weight_scale": scale.reshape(rows, columns // group),
        "weight_shape": np.array([rows, columns], np.int64),
    }


def _best_scales(grouped: Array) -> NDArray[np.uint16]:
    """Of each group, the bfloat16 that leaves the least squared error, among those that `_SHRINK` says."""
    largest = np.maximum(np.abs(grouped).max(axis=1), np.float32(1e-8))
    best_error = np.full(len(grouped), np.inf, np.float32)
    best = np.zeros(len(grouped), np.uint16)
    for part in _SHRINK:
        bits = to_bfloat16(largest * (part / np.float32(7.5)))
        scale = from_bfloat16(bits)
        left = _rounded(grouped, scale)
        left *= scale[:, None]
        left -= grouped
        error = np.einsum("ij,ij->i", left, left)
        better = error < best_error
        best_error[better], best[better] = error[better], bits[better]
    return best


def _rounded(grouped: Array, scale: Array) -> Array:
    values = grouped / scale[:, None]
    np.rint(values, out=values)
    return np.clip(values, -8, 7, out=values)


def to_bfloat16(values: Array) -> NDArray[np.uint16]:
    """The bits, rounded to nearest even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bfloat16(bits: NDArray[np.uint16]) -> Array:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def to_fp8(values: Array) -> NDArray[np.uint8]:
    """The bits of e4m3fn (OCP FP8, no infinities), rounded to nearest even; |values| ≤ 448."""
    values = values.clip(-FP8_LARGEST, FP8_LARGEST)
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    magnitude = bits & np.uint32(0x7FFFFFFF)
    normal = ((magnitude + np.uint32(0x7FFFF) + ((magnitude >> 20) & 1)) >> 20) - np.uint32(120 << 3)
    tiny = np.rint(np.abs(values) * np.float32(512.0)).astype(np.uint32)  # below 2^-6: steps of 2^-9
    code = np.where(magnitude < np.uint32((127 - 6) << 23), tiny, normal)
    return (code | ((bits >> 24) & 0x80)).astype(np.uint8)


def from_fp8(bits: NDArray[np.uint8]) -> Array:
    return _FP8[bits]


def _fp8_values() -> Array:
    codes = np.arange(256)
    exponent, mantissa = (codes >> 3) & 15, codes & 7
    values = np.where(
        exponent == 0, mantissa * 2.0**-9, (1 + mantissa / 8) * 2.0 ** (exponent.astype(float) - 7)
    )
    values = np.where(codes & 127 == 127, np.nan, values)
    return (values * np.where(codes & 128, -1.0, 1.0)).astype(np.float32)


_FP8 = _fp8_values()


def _listed(sizes: object) -> str:
    return ", ".join(str(size) for size in sorted(sizes))  # type: ignore[call-overload]
