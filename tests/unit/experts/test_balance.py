"""The numbered rules of balance.py.

1. Every expert has a slot, every rank the same number of slots, whatever the loads.
2. No rank holds an expert twice when there are ranks enough.
3. On skewed traces 12.5% redundant experts bring the busiest rank within 5% of the mean.
4. The same loads always give the same plan; a unit or a common factor changes nothing.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from services.experts.balance import GOAL, Placement, fewest_redundant, plan, round_robin


def trace(seed: int, skew: float, layers: int = 4, experts: int = 256) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    popularity = 1 / np.arange(1, experts + 1) ** skew
    return np.stack([rng.permutation(popularity) * rng.lognormal(0, 0.2, experts) for _ in range(layers)])


@given(
    st.integers(0, 2**31),
    st.sampled_from([(8, 2, 0), (8, 4, 4), (16, 8, 8), (64, 16, 16), (12, 3, 3)]),
    st.sampled_from([0.0, 1.0, 3.0]),
)
@settings(max_examples=40)
def test_every_expert_has_a_slot_and_no_rank_holds_one_twice(
    seed: int, shape: tuple[int, int, int], sigma: float
) -> None:
    experts, ranks, redundant = shape
    rng = np.random.default_rng(seed)
    loads = rng.lognormal(0, sigma, (3, experts)) * rng.integers(0, 2, (3, experts))
    placement = plan(loads, ranks, redundant)
    assert placement.experts.shape == (3, ranks, (experts + redundant) // ranks)
    placement.check_integrity(experts)
    for layer in placement.experts:
        for rank in layer:
            assert len(set(rank.tolist())) == len(rank)


@pytest.mark.parametrize("ranks", [8, 16, 32])
@pytest.mark.parametrize("skew", [0.5, 0.8, 1.0, 1.2])
def test_skewed_traces_are_balanced_within_five_percent(skew: float, ranks: int) -> None:
    for seed in range(3):
        loads = trace(seed, skew)
        placement = plan(loads, ranks, 32)
        assert placement.imbalance(loads).max() <= GOAL
        assert round_robin(4, 256, ranks).imbalance(loads).min() > GOAL


def test_no_load_is_lost_or_made() -> None:
    loads = trace(1, 1.0)
    np.testing.assert_allclose(plan(loads, 16, 32).rank_loads(loads).sum(axis=1), loads.sum(axis=1))


@given(st.floats(1e-9, 1e12))
@settings(max_examples=10)
def test_the_unit_of_the_loads_does_not_matter(unit: float) -> None:
    loads = trace(2, 1.0, layers=2, experts=32)
    np.testing.assert_array_equal(plan(loads, 4, 4).experts, plan(loads * unit, 4, 4).experts)


def test_no_load_at_all_is_balanced() -> None:
    nothing = np.zeros((2, 16))
    placement = plan(nothing, 4, 4)
    placement.check_integrity(16)
    assert placement.imbalance(nothing).tolist() == [1.0, 1.0]


def test_redundancy_is_chosen_as_small_as_it_can_be() -> None:
    even = np.ones((2, 32))
    assert fewest_redundant(even, 8, 32) == 0
    one_busy = np.ones((2, 32))
    one_busy[:, 3] = 12.0
    needed = fewest_redundant(one_busy, 8, 32)
    assert needed is not None
    assert needed > 0
    assert plan(one_busy, 8, needed).imbalance(one_busy).max() <= GOAL
    assert plan(one_busy, 8, needed - 8).imbalance(one_busy).max() > GOAL
    everything_on_one = np.zeros((1, 32))
    everything_on_one[0, 0] = 1.0
    assert fewest_redundant(everything_on_one, 8, 0) is None


@pytest.mark.parametrize(
    ("loads", "ranks", "redundant", "says"),
    [
        (np.ones((1, 10)), 4, 0, "do not fill 4 ranks evenly"),
        (np.array([[1.0, -1.0]]), 2, 0, "not negative"),
        (np.array([[1.0, np.nan]]), 2, 0, "finite"),
    ],
)
def test_what_cannot_be_is_said(loads: NDArray[np.float64], ranks: int, redundant: int, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        plan(loads, ranks, redundant)


def test_a_broken_placement_is_found() -> None:
    with pytest.raises(ValueError, match="no slot"):
        Placement(np.zeros((1, 2, 2), np.int64)).check_integrity(2)
    with pytest.raises(ValueError, match="unknown expert"):
        Placement(np.full((1, 2, 2), 9, np.int64)).check_integrity(2)
