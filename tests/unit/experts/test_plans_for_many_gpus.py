"""Groups of four and eight ranks are checked and planned as groups of two are: nothing here starts anything.

1. What fits exactly is accepted, one GPU less is refused, and the error names what would fit.
2. The ranks' bundles hold the group's GPUs, neither more nor less.
3. Weights per GPU fall with every rank, down to what each repeats; experts fill the ranks evenly or are refused.
4. Balancing is refused where it would do nothing, and says what would do.
"""

from __future__ import annotations

import itertools

import pytest

from load_tests.bench.gpu_models import V2_LITE, V3_CUT
from services.config import ExpertsConfig
from services.errors import ConfigError
from services.experts import groups, sizing

SIZES = list(itertools.product((4, 8), (1, 2), (1, 2)))
H100 = sizing.GPUS["H100"]


def settings(**changes: object) -> ExpertsConfig:
    return ExpertsConfig.model_validate({"device": "cuda", **changes})


@pytest.mark.parametrize(("shards", "tensor", "copies"), SIZES)
def test_what_fits_exactly_is_accepted(shards: int, tensor: int, copies: int) -> None:
    config = settings(shards=shards, tensor_parallel=tensor, groups=copies)
    gpus = shards * tensor * copies
    for model in (V2_LITE, V3_CUT):
        groups.check(config, model)
    groups.check_gpus(config, gpus)
    assert groups.bundle(config)["GPU"] * shards * copies == gpus
    with pytest.raises(ConfigError, match=f"{gpus} GPUs are wanted .* this host has {gpus - 1}: "):
        groups.check_gpus(config, gpus - 1)


@pytest.mark.parametrize("model", [V2_LITE, V3_CUT])
def test_weights_fall_with_every_rank(model: dict[str, object]) -> None:
    repeated = sizing.weights(model).resident * 2
    shares = [sizing.size(model, H100, data_parallel=ranks).weight_bytes for ranks in (1, 2, 4, 8)]
    routed = [share - repeated for share in shares]
    assert routed == pytest.approx([routed[0] / ranks for ranks in (1, 2, 4, 8)])
    mixed = sizing.size(model, H100, data_parallel=4, tensor_parallel=2).weight_bytes
    assert shares[3] > mixed  # the same experts, and half of the attention


@pytest.mark.parametrize(("ranks", "redundant"), [(4, 0), (4, 4), (4, 8), (8, 0), (8, 8)])
def test_redundant_experts_fill_the_ranks(ranks: int, redundant: int) -> None:
    groups.check(settings(shards=ranks, redundant_experts=redundant, balance_every_steps=1000), V2_LITE)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (
            {"shards": 8, "redundant_experts": 4, "balance_every_steps": 9},
            "8 ranks evenly: redundant_experts=0 or 8",
        ),
        ({"shards": 4, "redundant_experts": 4}, "nothing without balance_every_steps"),
        ({"shards": 1, "balance_every_steps": 9}, "groups of several GPUs"),
        ({"shards": 4, "balance_every_steps": 9, "expert_parallel": "off"}, "groups of several GPUs"),
        ({"shards": 4, "balance_every_steps": 9, "device": "cpu"}, "groups of several GPUs"),
        ({"shards": 6}, "64 experts do not spread over 6 ranks: shards=1, 2, 4, 8, 16, 32 or 64 would"),
        ({"shards": 4, "tensor_parallel": 32}, "does not divide the model's 16 attention heads"),
    ],
)
def test_what_does_not_fit_is_told_what_would(changed: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        groups.check(settings(**changed), V2_LITE)


@pytest.mark.parametrize(
    ("model", "tensor", "data", "redundant", "measured_gib"),
    [
        (V2_LITE, 1, 1, 0, 29.34),
        (V2_LITE, 1, 2, 0, 15.94),
        (V2_LITE, 2, 1, 0, 14.75),
        (V2_LITE, 2, 2, 0, 8.46),
        (V2_LITE, 1, 4, 0, 9.23),
        (V2_LITE, 1, 2, 8, 17.61),
        (V2_LITE, 1, 4, 8, 10.1),
        (V3_CUT, 1, 1, 0, 46.75),
        (V3_CUT, 1, 2, 0, 25.75),
        (V3_CUT, 1, 4, 0, 15.25),
    ],
)
def test_the_formula_is_within_two_percent_of_h100s(
    model: dict[str, object], tensor: int, data: int, redundant: int, measured_gib: float
) -> None:
    """What vLLM 0.26 said that loading took, 22 November 2026."""
    planned = sizing.size(
        model, H100, tensor_parallel=tensor, data_parallel=data, redundant_experts=redundant
    )
    assert planned.weight_bytes / 2**30 == pytest.approx(measured_gib, rel=0.02)
