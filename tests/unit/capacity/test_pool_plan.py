"""Sizes of pools, told as stories."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from services.capacity.nodes import PoolView
from services.capacity.pool_plan import Action, GiveUp, Memory, SetDesired, plan
from services.config_capacity import CapacityConfig, PoolConfig, ScaleConfig, Tier

POLICY = ScaleConfig()
POOLS = {
    "spot": PoolConfig(
        asg="s", tier=Tier.SPOT, min_size=2, max_size=10, on_demand_percentage=0, fallback="fallback"
    ),
    "fallback": PoolConfig(asg="f", tier=Tier.FALLBACK, min_size=0, max_size=6),
}


def view(asg: str, desired: int, serving: int) -> PoolView:
    return PoolView(asg, desired, (), tuple(f"{asg}{n}" for n in range(serving)), ())


def look(
    memory: Memory, spot: PoolView, fallback: PoolView, demand: int, now_s: float
) -> tuple[Memory, tuple[Action, ...]]:
    return plan(memory, POOLS, {"spot": spot, "fallback": fallback}, {"spot": demand}, now_s, POLICY)


def test_growing_is_at_once() -> None:
    _, actions = look(Memory(), view("s", 2, 2), view("f", 0, 0), 5, 0.0)
    assert actions == (SetDesired("s", 5),)


def test_spot_that_stays_short_is_made_up_for() -> None:
    memory, _ = look(Memory(), view("s", 5, 2), view("f", 0, 0), 5, 0.0)
    memory, actions = look(memory, view("s", 5, 2), view("f", 0, 0), 5, 89.0)
    assert actions == ()
    memory, actions = look(memory, view("s", 5, 2), view("f", 0, 0), 5, 90.0)
    assert actions == (SetDesired("f", 3),)
    _, actions = look(memory, view("s", 5, 2), view("f", 3, 3), 5, 95.0)
    assert actions == ()


def test_the_fallback_is_given_back_by_drain_when_spot_is_whole_again() -> None:
    memory, _ = look(Memory(), view("s", 5, 2), view("f", 0, 0), 5, 0.0)
    memory, _ = look(memory, view("s", 5, 2), view("f", 0, 0), 5, 90.0)
    memory, _ = look(memory, view("s", 5, 5), view("f", 3, 3), 5, 100.0)
    memory, actions = look(memory, view("s", 5, 5), view("f", 3, 3), 5, 700.0)
    assert actions == ()  # spot has been whole for long enough; the surplus begins to count
    _, actions = look(memory, view("s", 5, 5), view("f", 3, 3), 5, 1300.0)
    assert actions == (GiveUp("f2"),)


def test_shrinking_waits_and_names_one_node_at_a_time() -> None:
    memory, actions = look(Memory(), view("s", 6, 6), view("f", 0, 0), 3, 0.0)
    assert actions == ()
    memory, actions = look(memory, view("s", 6, 6), view("f", 0, 0), 3, 600.0)
    assert actions == (GiveUp("s5"),)
    leaving = PoolView("s", 6, (), ("s0", "s1", "s2", "s3", "s4"), ("s5",))
    _, actions = look(memory, leaving, view("f", 0, 0), 3, 605.0)
    assert actions == ()


def test_a_pool_that_nobody_speaks_for_keeps_its_size() -> None:
    views = {"spot": view("s", 5, 5), "fallback": view("f", 0, 0)}
    memory, actions = plan(Memory(), POOLS, views, {}, 0.0, POLICY)
    memory, later = plan(memory, POOLS, views, {}, 10_000.0, POLICY)
    assert actions == later == ()
    short = {"spot": view("s", 5, 3), "fallback": view("f", 0, 0)}
    memory, _ = plan(memory, POOLS, short, {}, 10_001.0, POLICY)
    _, actions = plan(memory, POOLS, short, {}, 10_100.0, POLICY)
    assert actions == (SetDesired("f", 2),)
    _, again = plan(memory, POOLS, {**short, "fallback": view("f", 2, 2)}, {}, 10_100.0, POLICY)
    assert again == ()


def test_a_pool_that_was_not_seen_is_left_alone() -> None:
    _, actions = plan(Memory(), POOLS, {}, {"spot": 9}, 0.0, POLICY)
    assert actions == ()


def test_groups_come_and_go_whole() -> None:
    pools = {"vip": PoolConfig(asg="v", tier=Tier.VIP, min_size=2, max_size=9, group_nodes=4)}
    assert (pools["vip"].floor, pools["vip"].ceiling) == (4, 8)
    _, actions = plan(Memory(), pools, {"vip": view("v", 4, 4)}, {"vip": 5}, 0.0, POLICY)
    assert actions == (SetDesired("v", 8),)
    memory, _ = plan(Memory(), pools, {"vip": view("v", 8, 8)}, {"vip": 1}, 0.0, POLICY)
    _, actions = plan(memory, pools, {"vip": view("v", 8, 8)}, {"vip": 1}, 600.0, POLICY)
    assert actions == tuple(GiveUp(f"v{n}") for n in range(4, 8))


@pytest.mark.parametrize(
    "bad",
    [
        {"asg": "v", "tier": "vip", "min_size": 0, "max_size": 1, "on_demand_percentage": 50},
        {"asg": "v", "tier": "spot", "min_size": 2, "max_size": 1},
        {"asg": "v", "tier": "fallback", "min_size": 3, "max_size": 3, "group_nodes": 2},
        {"asg": "v", "tier": "gold", "min_size": 0, "max_size": 1},
        {"asg": "v", "tier": "spot", "min_size": 0, "max_size": 1, "colour": "red"},
    ],
)
def test_bad_pools_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        PoolConfig.model_validate(bad)


def test_bad_sections_are_refused() -> None:
    with pytest.raises(ValidationError, match="together they must stay below"):
        CapacityConfig.model_validate(
            {"drain": {"drain_seconds": 60, "graceful_shutdown_timeout_s": 40, "replica_start_s": 20}}
        )
    with pytest.raises(ValidationError):
        CapacityConfig.model_validate({"drain": {"drain_seconds": 111}})
    with pytest.raises(ValidationError, match="point fallback"):
        CapacityConfig.model_validate(
            {"pools": {"s": {"asg": "s", "tier": "spot", "min_size": 0, "max_size": 1, "fallback": "x"}}}
        )
