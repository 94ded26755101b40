"""A rank that knows its engine dead takes its group with it, at once and once.

1. Everything of the group is fenced for every gateway, at the moment the rank says so.
2. What registers of the group again gets no leases, and is not fenced a second time.
3. A group of another name, and an engine that began anew, are as good as any.
"""

from __future__ import annotations

from services.config import QueueConfig
from services.link.messages import Acquire, EngineDrain, EngineUp, Fence, Grant
from services.queue.events import Effect, FromEngine, FromGateway, ToAllGateways, ToGateway
from services.queue.scheduler import Scheduler

RANKS = 4


def up(scheduler: Scheduler, name: str, group: str, epoch: int = 0) -> list[Effect]:
    told = EngineUp(name, f"{name}:1", "m", 8, 100_000, 16, 4096, group=group, epoch=epoch)
    return scheduler.decide(FromEngine(told), 1.0)


def two_groups() -> Scheduler:
    scheduler = Scheduler(QueueConfig())
    for group in ("a", "b"):
        for rank in range(RANKS):
            up(scheduler, f"{group}{rank}", group)
    return scheduler


def lost(scheduler: Scheduler, name: str) -> set[str]:
    effects = scheduler.decide(FromEngine(EngineDrain(name, 0.0, "its process ends")), 2.0)
    return {
        effect.message.engine_id
        for effect in effects
        if isinstance(effect, ToAllGateways) and isinstance(effect.message, Fence)
    }


def granted(scheduler: Scheduler, tickets: range) -> set[str]:
    """Where requests go, by the first letter of the engine."""
    found: set[str] = set()
    for ticket in tickets:
        asked = Acquire(ticket, f"r{ticket}", "m", "t", "standard", 10, 10, 0.0, 60.0)
        for effect in scheduler.decide(FromGateway("g", asked), 2.0):
            if isinstance(effect, ToGateway) and isinstance(effect.message, Grant):
                found.add(effect.message.engine_id[0])
    return found


def test_one_rank_takes_its_group_with_it() -> None:
    scheduler = two_groups()
    assert granted(scheduler, range(1, 9)) == {"a", "b"}
    assert lost(scheduler, "a2") == {"a0", "a1", "a2", "a3"}
    assert granted(scheduler, range(9, 17)) == {"b"}
    scheduler.state.check_integrity()


def test_what_is_left_of_it_gets_nothing() -> None:
    scheduler = two_groups()
    epoch = scheduler.state.fleet.engines["a1"].epoch
    lost(scheduler, "a2")
    for rank in range(RANKS):
        up(scheduler, f"a{rank}", "a", epoch)
    assert scheduler.state.fleet.engines["a1"].epoch > epoch
    assert lost(scheduler, "a1") == set()
    assert granted(scheduler, range(1, 17)) == {"b"}
    scheduler.state.check_integrity()


def test_a_new_group_and_a_new_engine_are_welcome() -> None:
    scheduler = two_groups()
    lost(scheduler, "a0")
    lost(scheduler, "b0")
    assert granted(scheduler, range(1, 9)) == set()
    effects = up(scheduler, "c0", "c")
    assert any(isinstance(effect, ToGateway) for effect in effects)
    alone = Scheduler(QueueConfig())
    up(alone, "d", "")
    assert lost(alone, "d") == {"d"}
    up(alone, "d", "")
    assert granted(alone, range(1, 3)) == {"d"}
