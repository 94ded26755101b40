"""The shell that asks the queue: what a silent queue means, and an operator's minimum."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from services.capacity.figures import pool_figures
from services.capacity.nodes import PoolView
from services.capacity.queue_demand import QueueDemand
from services.clock import VirtualClock
from services.config_capacity import CapacityConfig
from services.queue.stats import BandView, EngineView, QueueSnapshot

CONFIG = CapacityConfig.model_validate(
    {
        "pools": {
            "spot": {
                "asg": "s",
                "tier": "spot",
                "max_size": 9,
                "on_demand_percentage": 0,
                "fallback": "fall",
            },
            "fall": {"asg": "f", "tier": "fallback", "max_size": 2},
        }
    }
)
VIEWS = {"spot": PoolView("s", 2, (), ("i-1", "i-2")), "fall": PoolView("f", 0)}


def said(waiting: int) -> Any:
    """As the queue really says it: every field of its snapshot, one engine on a machine of ours."""
    band = BandView("standard", 1, waiting, 0, 1.0, 0, 0, 0, 0, 0, 0, 0, 0, 0, {}, 0.0, ())
    engine = EngineView("e", "default", 1, True, False, 10, 0, 16, 0, 0, 0, 1000, 0.0, "i-1")
    return msgspec.to_builtins(
        (QueueSnapshot("m", (band,), (engine,), (), 10, 0, 10, 0.0, 0.0, 1, "token_fairness"),)
    )


class Queue:
    def __init__(self) -> None:
        self.answer: Any = said(35)

    def __call__(self) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def queue() -> Queue:
    return Queue()


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def demand(queue: Queue, clock: VirtualClock) -> QueueDemand:
    return QueueDemand(CONFIG, queue, clock)


def test_the_queues_own_snapshot_is_understood(demand: QueueDemand) -> None:
    assert demand(CONFIG.pools, VIEWS) == {"spot": 5} and not demand.failure


def test_a_queue_that_is_away_has_not_lost_its_demand_at_once(
    demand: QueueDemand, queue: Queue, clock: VirtualClock
) -> None:
    demand(CONFIG.pools, VIEWS)
    queue.answer = ConnectionError("gone")
    clock.advance(60.0)
    assert demand(CONFIG.pools, VIEWS) == {"spot": 5} and "gone" in demand.failure
    clock.advance(0.1)
    assert demand(CONFIG.pools, VIEWS) == {}, "pools keep their sizes"
    queue.answer = said(0)
    assert demand(CONFIG.pools, VIEWS) == {"spot": 0} and not demand.failure


@pytest.mark.parametrize("nonsense", [None, [{"model": 3}], "x", [{"bands": []}]])
def test_what_is_no_snapshot_is_a_queue_that_is_away(
    demand: QueueDemand, queue: Queue, nonsense: Any
) -> None:
    queue.answer = nonsense
    assert demand(CONFIG.pools, VIEWS) == {} and demand.failure


def test_an_operators_minimum(demand: QueueDemand, queue: Queue) -> None:
    demand.want({"spot": 7})
    assert demand(CONFIG.pools, VIEWS) == {"spot": 7}
    demand.want({"spot": 1})
    assert demand(CONFIG.pools, VIEWS) == {"spot": 5}
    with pytest.raises(ValueError, match="no pool named gold"):
        demand.want({"gold": 1})
    assert demand.least == {"spot": 1}


def test_a_minimum_shrinks_no_pool_that_nobody_speaks_for(demand: QueueDemand, queue: Queue) -> None:
    queue.answer = ConnectionError("gone")
    demand.want({"spot": 1, "fall": 1})
    assert demand(CONFIG.pools, VIEWS) == {"spot": 2, "fall": 1}


def test_figures(demand: QueueDemand) -> None:
    wanted = demand(CONFIG.pools, VIEWS)
    figures = pool_figures(VIEWS, wanted, {"spot": 1}, demand.models)
    assert figures["spot"] == {
        "wanted": 5, "desired": 2, "starting": 0, "serving": 2, "leaving": 0, "lent": 1, "without_engine": 1,
    }  # fmt: skip
    assert "wanted" not in figures["fall"]
