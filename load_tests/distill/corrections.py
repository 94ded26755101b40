"""What a run keeps, as arrays: orders, routers, norms, and low-rank factors as 8-bit integers. Pure.

Rules: float32 arrays in, the file's arrays out (services/experts/sparse_split.py reads them); knows no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.experts.sparse_split import SparsePlan

Floats = NDArray[np.float32]


def pack_factor(factor: Floats, axis: int) -> tuple[NDArray[np.int8], Floats]:
    """(integers of the same shape, scale of each rank). `axis` is the rank's."""
    other = 1 - axis
    scale = np.maximum(np.abs(factor).max(axis=other), 1e-12).astype(np.float32) / 127
    return np.round(factor / np.expand_dims(scale, other)).astype(np.int8), scale


def pack(
    orders: Sequence[NDArray[Any]], layers: Sequence[Mapping[str, Floats]], norm: Floats
) -> dict[str, NDArray[Any]]:
    """Layers hold `norm1`, `norm2`, `router` and per matrix `NAME_a` [rank, in], `NAME_b` [out, rank]."""
    packed: dict[str, NDArray[Any]] = {
        "order": np.stack(orders).astype(np.int16),
        "router": np.stack([layer["router"] for layer in layers]).astype(np.float16),
        "norm1": np.stack([layer["norm1"] for layer in layers]).astype(np.float16),
        "norm2": np.stack([layer["norm2"] for layer in layers]).astype(np.float16),
        "norm": norm.astype(np.float16),
    }
    shorts = sorted(name.removesuffix("_a") for name in layers[0] if name.endswith("_a"))
    for short in shorts:
        for side, axis in (("a", 0), ("b", 1)):
            pairs = [pack_factor(layer[f"{short}_{side}"], axis) for layer in layers]
            packed[f"{short}.{side}"] = np.stack([pair[0] for pair in pairs])
            packed[f"{short}.{side}_scale"] = np.stack([pair[1] for pair in pairs])
    return packed


def unpack(packed: Mapping[str, NDArray[Any]]) -> list[dict[str, Floats]]:
    """The layers as `pack` was given them, as far as the rounding leaves them: float32."""
    layers: list[dict[str, Floats]] = []
    shorts = sorted(name.removesuffix(".a") for name in packed if name.endswith(".a"))
    for i in range(len(packed["order"])):
        layer = {name: packed[name][i].astype(np.float32) for name in ("norm1", "norm2", "router")}
        for short in shorts:
            layer[f"{short}_a"] = packed[f"{short}.a"][i] * packed[f"{short}.a_scale"][i][:, None]
            layer[f"{short}_b"] = packed[f"{short}.b"][i] * packed[f"{short}.b_scale"][i]
        layers.append(layer)
    return layers


def move_experts(
    order: NDArray[np.int64], layer: Mapping[str, Floats], experts: NDArray[np.int64], plan: SparsePlan
) -> tuple[NDArray[np.int64], dict[str, Floats]]:
    """The same layer with its routed experts in the order `experts`: (order of neurons, arrays)."""
    routed = plan.num_shared + experts[:, None] * plan.expert_width + np.arange(plan.expert_width)
    moved = np.concatenate((np.arange(plan.num_shared), routed.ravel()))
    return order[moved], {
        **layer,
        "router": layer["router"][experts],
        "gate_b": layer["gate_b"][moved],
        "up_b": layer["up_b"][moved],
        "down_a": layer["down_a"][:, moved],
    }


def rank_order(loads: NDArray[np.float64], num_parts: int = 4) -> NDArray[np.int64]:
    """An order of the experts in which equal consecutive parts (ranks) carry nearly the same load, and so do pairs
    of parts. The heaviest expert goes to the lightest part with room; light and heavy parts then become neighbours.
    loads [experts]."""
    size = len(loads) // num_parts
    parts: list[list[int]] = [[] for _ in range(num_parts)]
    sums = np.zeros(num_parts)
    for expert in np.argsort(-loads, kind="stable"):
        free = [p for p in range(num_parts) if len(parts[p]) < size]
        part = min(free, key=lambda p: sums[p])
        parts[part].append(int(expert))
        sums[part] += loads[expert]
    by_load = np.argsort(sums, kind="stable")
    outside_in = [by_load[i // 2 if i % 2 == 0 else -1 - i // 2] for i in range(num_parts)]
    return np.array([expert for part in outside_in for expert in sorted(parts[part])])
