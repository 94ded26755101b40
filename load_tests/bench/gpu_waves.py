"""What bench_gpu_layouts.py starts together and measures in turns: values only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .bench_gpu_rank import NO_MARLIN, SKEW


@dataclass(frozen=True)
class Layout:
    """One group: `gpus[rank]` are a rank's GPUs. `kv_gb` is of each GPU."""

    name: str
    gpus: tuple[tuple[int, ...], ...]
    kv_gb: float = 5.2
    settings: dict[str, Any] = field(default_factory=dict)
    model: str = "v2-lite"
    force: dict[str, Any] = field(default_factory=dict)


def ranks(*numbers: int) -> tuple[tuple[int, ...], ...]:
    return tuple((number,) for number in numbers)


EP, SLICED = {"expert_parallel": "on"}, {"expert_parallel": "off"}
FEWER = {"max_num_batched_tokens": 2048}
BALANCED = {"redundant_experts": 8, "balance_every_steps": 150}
SELDOM, REDUNDANT = {"balance_every_steps": 1000}, {"redundant_experts": 8}
"""vLLM balances for the first time after a quarter of it: within the warm-up of the wave "skew-two"."""
NEVER = {"balance_every_steps": 40_000}
"""Experts are counted and stay where they are for the first 10,000 steps, longer than a wave takes."""


def skewed(popular_first: bool) -> list[Layout]:
    """Balancing off, on, and on with redundant experts, where routers prefer some experts."""
    force = {SKEW: {"seed": 1, "sigma": 0.8, "popular_first": popular_first}}
    return [
        Layout("DP2+EP2 unbalanced", ranks(0, 1), 3.0, FEWER | NEVER, force=force),
        Layout("DP2+EP2 balanced, 0 redundant", ranks(0, 1), 3.0, FEWER | SELDOM, force=force),
        Layout("DP2+EP2 balanced, 8 redundant", ranks(0, 1), 3.0, FEWER | SELDOM | REDUNDANT, force=force),
    ]


EVEN = {SKEW: {"seed": 1, "sigma": 0.0, "popular_first": False}}
TRITON = {"linear_backend": "triton", NO_MARLIN: True}
WAVES: dict[str, list[Layout]] = {
    "small": [
        Layout("TP1", ranks(0), 10.3),
        Layout("TP1 fp8", ranks(1), settings={"quantization": "fp8_per_tensor"}),
        Layout("TP1 int8 experts", ranks(2), settings={"quantization": "experts_int8"}),
        Layout("TP1 int4 experts", ranks(3), model="v2-lite-int4", force={"quantization": "moe_wna16"}),
        Layout("DP2+EP2", ranks(0, 1)),
    ],
    "pairs": [
        Layout("DP2+EP2", ranks(0, 1)),
        Layout("DP2 experts sliced", ranks(0, 1), settings=SLICED),
        Layout("TP2+EP", ((2, 3),), 10.3, EP),
        Layout("TP2", ((2, 3),), 10.3),
    ],
    "large": [
        Layout("TP1", ranks(0)),
        Layout("TP1 fp8", ranks(1), settings={"quantization": "fp8_per_tensor"}),
        Layout("TP1 int8 experts", ranks(2), settings={"quantization": "experts_int8"}),
        Layout("DP4+EP4", ranks(0, 1, 2, 3), 7.8),
    ],
    # Two GPUs.
    "skew-two": [
        Layout("DP2+EP2 unbalanced", ranks(0, 1), 3.0, FEWER),
        Layout("DP2+EP2 balanced, 0 redundant", ranks(0, 1), 3.0, FEWER | SELDOM),
        Layout("DP2+EP2 balanced, 8 redundant", ranks(0, 1), 3.0, FEWER | SELDOM | REDUNDANT),
    ],
    "skew-seen": skewed(False),
    "skew-worst": skewed(True),
    "even-two": [
        Layout("DP2+EP2", ranks(0, 1), force=EVEN),
        Layout("DP2 experts sliced", ranks(0, 1), settings=SLICED, force=EVEN),
        Layout("TP2", ((0, 1),), force=EVEN),
    ],
    "two-dense": [
        Layout("TP1", ranks(0), 10.5),
        Layout("TP1, second GPU", ranks(1), 10.5),
        Layout("TP2", ((0, 1),), 10.5),
    ],
    "two-sparse": [
        Layout("DP2+EP2", ranks(0, 1)),
        Layout("DP2 experts sliced", ranks(0, 1), settings=SLICED),
        Layout("TP2+EP", ((0, 1),), settings=EP),
    ],
    "quantised-two": [
        Layout("TP1 made fp8", ranks(0), model="v2-lite-made-fp8"),
        Layout("TP1 made int8", ranks(1), model="v2-lite-made-int8"),
        Layout("TP1 made int4", ranks(0), model="v2-lite-made-int4", force=TRITON),
        Layout("TP1 fp8", ranks(1), settings={"quantization": "fp8_per_tensor"}),
        Layout("TP1 int8 experts", ranks(0), settings={"quantization": "experts_int8"}),
    ],
    "marlin": [
        Layout("TP1", ranks(0)),
        Layout("TP1 made int4, Marlin", ranks(1), model="v2-lite-made-int4"),
        Layout("TP1 made int4, Triton", ranks(1), model="v2-lite-made-int4", force=TRITON),
    ],
    # One GPU is enough for these two: each layout has a turn of its own there.
    "made-8": [
        Layout("TP1", ranks(0), 3.0),
        Layout("TP1 made fp8", ranks(0), 3.0, model="v2-lite-made-fp8"),
    ],
    "made-4": [
        Layout("TP1 made int8", ranks(0), 3.0, model="v2-lite-made-int8"),
        Layout("TP1 made int4", ranks(0), 3.0, model="v2-lite-made-int4"),
    ],
    "skew": [
        Layout("DP4+EP4 balanced", ranks(0, 1, 2, 3), 2.7, BALANCED),
        Layout("DP4+EP4", ranks(0, 1, 2, 3), 2.7),
        Layout("DP2xTP2+EP", ((0, 1), (2, 3)), settings=EP),
    ],
    "v3": [
        Layout("V3 DP2+EP2", ranks(2, 3), 1.3, FEWER, "v3-cut"),
        Layout("V3 DP4+EP4", ranks(0, 1, 2, 3), 1.3, FEWER, "v3-cut"),
    ],
    "v3-one": [Layout("V3 TP1", ranks(0), 1.3, FEWER, "v3-cut")],
}
Turn = tuple[tuple[str, ...], tuple[int, ...], int]
"""Layouts measured at the same time, concurrencies, and how many different tokens prompts have (0: all)."""
QUANTISED = ("TP1", "TP1 fp8", "TP1 int8 experts", "TP1 int4 experts")
BALANCED_TURNS: list[Turn] = [
    (("DP2+EP2 unbalanced",), (256,), 0),
    (("DP2+EP2 balanced, 0 redundant",), (256,), 0),
    (("DP2+EP2 balanced, 8 redundant",), (256,), 0),
]
TURNS: dict[str, list[Turn]] = {
    "small": [(QUANTISED, (32, 256), 0), (("DP2+EP2",), (32, 256, 512), 0), (("TP1",), (512,), 0)],
    "pairs": [
        (("DP2+EP2", "TP2"), (32, 256, 512), 0),
        (("DP2 experts sliced", "TP2+EP"), (32, 256, 512), 0),
    ],
    "large": [(QUANTISED, (32, 256), 0), (("DP4+EP4",), (64, 512, 1024), 0)],
    "skew-seen": BALANCED_TURNS,
    "skew-worst": BALANCED_TURNS,
    "even-two": [
        (("DP2+EP2",), (256, 512), 0),
        (("DP2 experts sliced",), (256, 512), 0),
        (("TP2",), (256, 512), 0),
    ],
    "skew-two": [
        (("DP2+EP2 unbalanced",), (256,), 1),
        (("DP2+EP2 balanced, 0 redundant",), (256,), 1),
        (("DP2+EP2 balanced, 8 redundant",), (256,), 1),
    ],
    "two-dense": [
        (("TP1",), (32, 256, 512), 0),
        (("TP2",), (32, 256, 512), 0),
        (("TP1", "TP1, second GPU"), (16, 128, 256), 0),
    ],
    "two-sparse": [
        (("DP2+EP2",), (32, 256, 512), 0),
        (("DP2 experts sliced",), (32, 256, 512), 0),
        (("TP2+EP",), (32, 256), 0),
    ],
    "quantised-two": [
        (("TP1 made fp8", "TP1 made int8"), (32, 256), 0),
        (("TP1 made int4", "TP1 fp8"), (32, 256), 0),
        (("TP1 int8 experts",), (32, 256), 0),
    ],
    "marlin": [
        (("TP1", "TP1 made int4, Marlin"), (32, 256), 0),
        (("TP1 made int4, Triton",), (32,), 0),
    ],
    "made-8": [(("TP1",), (1, 32, 256), 0), (("TP1 made fp8",), (1, 32, 256), 0)],
    "made-4": [(("TP1 made int8",), (1, 32, 256), 0), (("TP1 made int4",), (1, 32, 256), 0)],
    "skew": [
        (("DP4+EP4",), (512,), 4),
        (("DP4+EP4 balanced",), (512,), 4),
        (("DP2xTP2+EP",), (64, 512), 0),
    ],
    "v3": [(("V3 DP4+EP4",), (64, 256, 512, 1024), 0), (("V3 DP2+EP2",), (64, 256, 512), 0)],
    "v3-one": [(("V3 TP1",), (64, 256), 0)],
}
