"""A look-up is given up when its bound has passed by the clock, whatever the event loop's timers do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cache.calls import Call
from services.cache.key import CacheKey
from services.cache.patience import LAG_S, TICK_S, Patience
from services.cache.redis_wire import RedisWire, Replies, WireError
from services.cache.seat import Seat
from services.clock import VirtualClock

BOUND_S = 0.0012
times_s = st.floats(0.0, 0.01)


def test_a_timer_that_comes_early_gives_nobody_up() -> None:
    """What uvloop does: a timer of 1.2 ms that comes after 0.05."""
    patience = Patience(5.0, BOUND_S, grace_s=0.0005, num_graces=1)
    assert patience.more_s(5.00005) == pytest.approx(0.00115)
    assert patience.more_s(5.00105) == pytest.approx(0.00015)
    assert patience.more_s(5.0012) == 0.0


def test_a_busy_event_loop_is_given_time_to_read() -> None:
    patience = Patience(0.0, BOUND_S, grace_s=0.0005, num_graces=1)
    assert patience.more_s(0.5) == 0.0005
    assert patience.more_s(0.50001) == pytest.approx(0.00049)
    assert patience.more_s(0.6) == 0.0, "there is one grace only"


@given(st.floats(0.0, 0.01), st.integers(0, 4), st.lists(times_s, max_size=50))
def test_invariants(bound_s: float, num_graces: int, later_s: list[float]) -> None:
    """1: not before the bound. 3: a timer that comes on time after it ends the wait."""
    patience, now_s, granted = Patience(0.0, bound_s, grace_s=0.0005, num_graces=num_graces), 0.0, 0
    due_s = bound_s
    for each_s in later_s:
        now_s += each_s
        more_s = patience.more_s(now_s)
        assert more_s >= 0.0
        if more_s == 0.0:
            assert now_s >= bound_s - TICK_S
            return
        if now_s >= due_s:
            assert now_s - due_s > LAG_S
            granted, due_s = granted + 1, now_s + 0.0005
        assert granted <= num_graces
        assert more_s == pytest.approx(due_s - now_s)
    now_s = max(now_s, due_s)
    assert patience.more_s(now_s) == 0.0


class Socket:
    """A transport that takes everything."""

    def is_closing(self) -> bool:
        return False

    def write(self, data: bytes) -> None: ...


class Timers:
    """An event loop's timers, fired by the test."""

    def __init__(self) -> None:
        self.due: list[tuple[float, Callable[[], object]]] = []

    def create_future(self) -> object:
        return object()

    def time(self) -> float:
        return 0.0

    def call_later(self, delay_s: float, call: Callable[..., object], *args: object) -> asyncio.TimerHandle:
        self.due.append((delay_s, lambda: call(*args)))
        return cast(asyncio.TimerHandle, self)

    def cancel(self) -> None: ...

    def fire(self) -> float:
        """Runs the latest one; returns what it was set to."""
        delay_s, call = self.due.pop()
        call()
        return delay_s


def test_a_wire_waits_by_its_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    timers, clock, told = Timers(), VirtualClock(), list[Replies | WireError]()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: timers)
    wire = RedisWire(clock)
    wire.connection_made(cast(asyncio.BaseTransport, Socket()))
    wire.ask([(b"GET", b"a")], BOUND_S, told.append)
    clock.advance(0.00005)
    assert timers.fire() == BOUND_S
    assert not told, "the timer came early"
    wire.data_received(b"+OK\r\n")
    assert told == [[b"OK"]]
    wire.ask([(b"GET", b"a")], BOUND_S, told.append)
    clock.advance(BOUND_S)
    timers.fire()
    assert isinstance(told[-1], WireError)
    wire.data_received(b"+OK\r\n")
    assert len(told) == 2, "late replies are matched and dropped"


def test_a_call_to_the_cache_waits_by_its_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    timers, clock, late = Timers(), VirtualClock(), list[Call]()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: timers)
    call = Call(1, CacheKey(b"k" * 48), cast(Seat, None))
    call.wait(0.002, clock, late.append)
    clock.advance(0.0004)
    timers.fire()
    assert not late, "the timer came early"
    clock.advance(0.0016)
    timers.fire()
    assert late == [call]
