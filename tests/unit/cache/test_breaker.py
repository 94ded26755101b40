"""When a store is left alone, and when it is asked again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.cache.breaker import Breaker


def test_it_opens_after_failures_in_a_row_only() -> None:
    breaker = Breaker(trip_after=3, silent_s=0.0)
    for _ in range(5):
        assert not breaker.failed(0.0)
        assert not breaker.failed(0.0)
        breaker.succeeded(0.0)
    assert [breaker.failed(0.0) for _ in range(3)] == [False, False, True]
    assert breaker.state == "open"
    assert not breaker.failed(0.0), "what was under way when it opened changes nothing"


def test_late_answers_among_good_ones_do_not_open_it() -> None:
    breaker, now_s = Breaker(trip_after=3, silent_s=0.1), 0.0
    for _ in range(100):
        breaker.succeeded(now_s)
        for _ in range(8):
            now_s += 0.01
            assert not breaker.failed(now_s)
    assert breaker.failed(now_s + 0.05)


def test_a_time_in_which_nobody_asked_is_no_silence() -> None:
    breaker = Breaker(trip_after=3, silent_s=0.1)
    breaker.succeeded(0.0)
    assert not any(breaker.failed(60.0 + 0.001 * number) for number in range(20))
    assert breaker.failed(60.2)


def test_one_probe_decides() -> None:
    breaker = Breaker(min_pause_s=0.1)
    assert breaker.failed(0.0, fatal=True)
    assert not breaker.probe(0.05)
    assert breaker.wait_s(0.05) == 0.05
    assert breaker.probe(0.1)
    assert not breaker.probe(0.1)
    breaker.succeeded(0.1)
    assert breaker.state == "closed"
    assert breaker.wait_s(0.1) == 0.0


def test_a_store_that_answers_probes_but_no_work_is_asked_ever_more_rarely() -> None:
    breaker = Breaker(min_pause_s=0.1, max_pause_s=2.0)
    now_s, pauses = 0.0, []
    for _ in range(8):
        while not breaker.failed(now_s):
            now_s += 0.05
        pauses.append(breaker.wait_s(now_s))
        now_s += pauses[-1]
        assert breaker.probe(now_s)
        breaker.succeeded(now_s)
    assert [round(pause, 2) for pause in pauses] == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0]
    now_s += 10
    while not breaker.failed(now_s):
        now_s += 0.05
    assert round(breaker.wait_s(now_s), 6) == 0.1, "a long good time is forgiven"


@given(st.lists(st.tuples(st.sampled_from(["ok", "fail", "fatal", "probe"]), st.floats(0, 3)), max_size=60))
def test_a_probe_is_always_due_within_the_longest_pause(events: list[tuple[str, float]]) -> None:
    breaker, now_s = Breaker(max_pause_s=2.0), 0.0
    for event, later_s in events:
        now_s += later_s
        match event:
            case "ok":
                breaker.succeeded(now_s)
            case "probe":
                breaker.probe(now_s)
            case _:
                breaker.failed(now_s, fatal=event == "fatal")
        assert breaker.wait_s(now_s) <= 2.0 + 1e-9
        if breaker.state == "open":
            assert breaker.probe(now_s + breaker.wait_s(now_s) + 1e-9)
            breaker.failed(now_s)
