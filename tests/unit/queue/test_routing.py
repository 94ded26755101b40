"""Where a lease points: load first, then the prefix that an engine probably holds, then pools; never where it died."""

from __future__ import annotations

import pytest

from services.config import BandConfig, QueueConfig
from services.link.messages import Acquire, EngineUp, Grant, Release
from services.queue.events import FromEngine, FromGateway
from services.queue.routing.prefix import PrefixIndex
from services.queue.scheduler import Scheduler
from tests.unit.queue.making import NOW_S, answer, asking

SYSTEM = tuple(range(100, 108))
"""Block hashes of a system prompt."""


def mesh(pools: tuple[str, ...] = ("default", "default"), config: QueueConfig | None = None) -> Scheduler:
    """A queue before engines e0, e1, … of eight slots."""
    scheduler = Scheduler(config or QueueConfig())
    for number, pool in enumerate(pools):
        up = EngineUp(f"e{number}", "x:1", "m", 8, 100_000, 16, 4096, pool)
        scheduler.decide(FromEngine(up), NOW_S)
    return scheduler


def goes_to(scheduler: Scheduler, message: Acquire) -> str:
    grant = answer(scheduler, message)
    assert isinstance(grant, Grant)
    return grant.engine_id


def end(scheduler: Scheduler, ticket: int) -> None:
    entry = scheduler.state.gateways["g"][ticket]
    scheduler.decide(FromGateway("g", Release(ticket, entry.lease_id, 10, 10, "completed")), NOW_S)


def test_without_anything_in_common_requests_spread_by_load() -> None:
    scheduler = mesh()
    places = [goes_to(scheduler, asking(ticket)) for ticket in range(1, 5)]
    assert sorted(places) == ["e0", "e0", "e1", "e1"]


def test_a_conversation_stays_where_its_beginning_is() -> None:
    """Session affinity: a turn's prompt begins with the turns before."""
    scheduler = mesh()
    history = SYSTEM
    home = goes_to(scheduler, asking(1, prefix=history))
    for ticket in range(2, 7):
        end(scheduler, ticket - 1)
        goes_to(scheduler, asking(100 + ticket))  # others come and go
        history = (*history, 1000 + ticket)
        assert goes_to(scheduler, asking(ticket, prefix=history)) == home
        end(scheduler, 100 + ticket)


def test_load_outweighs_a_prefix_in_the_end() -> None:
    scheduler = mesh()
    places = [goes_to(scheduler, asking(ticket, prefix=SYSTEM)) for ticket in range(1, 9)]
    assert places[:2] == ["e0", "e0"], "the second finds what the first left"
    assert set(places) == {"e0", "e1"}, "one engine is not filled while another idles"


def test_who_lost_an_engine_is_not_sent_there_again() -> None:
    scheduler = mesh()
    assert goes_to(scheduler, asking(1, prefix=SYSTEM)) == "e0"
    assert goes_to(scheduler, asking(2, prefix=SYSTEM, avoid=("e0",))) == "e1"
    only = mesh(("default",))
    assert goes_to(only, asking(1, avoid=("e0",))) == "e0", "unless there is no other"


def test_whole_replicas_of_a_pool_take_their_own_first() -> None:
    scheduler = mesh(("vip", "default"))
    assert goes_to(scheduler, asking(1, "vip")) == "e0"
    assert goes_to(scheduler, asking(2, "batch")) == "e1"
    config = QueueConfig(
        bands=(BandConfig(name="vip", rank=0), BandConfig(name="fixed", rank=1, preemptible=False))
    )
    strict = mesh(("vip", "default"), config)
    assert {goes_to(strict, asking(ticket, "fixed")) for ticket in range(1, 4)} == {"e1"}


def test_the_longest_match_wins_and_is_forgotten_with_its_engine() -> None:
    index = PrefixIndex()
    index.learn((1, 2, 3, 4), 0b01)
    index.learn((1, 2, 9), 0b10)
    assert index.matched_blocks((1, 2, 3, 5), 0b11) == {0b01: 3, 0b10: 2}
    assert index.matched_blocks((7, 8), 0b11) == {}
    assert index.matched_blocks((1, 2, 3), 0b10) == {0b10: 2}
    index.forget(0b01)
    assert index.matched_blocks((1, 2, 3, 4), 0b11) == {0b10: 2}
    assert len(index) == 3


@pytest.mark.parametrize("capacity", [1, 8, 100])
def test_the_index_is_bounded_and_keeps_what_was_used_last(capacity: int) -> None:
    index = PrefixIndex(capacity)
    for block in range(1000):
        index.learn((block,), 1)
    assert len(index) == capacity
    assert index.matched_blocks((999,), 1) == {1: 1}
    assert index.matched_blocks((0,), 1) == {}
