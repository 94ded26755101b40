"""Invariants of what a key may use (services/quota/allowance.py), on any sequence of takes, gives and waits."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.quota.allowance import DAY_S, Allowance, Levels, give, take

limits = st.integers(0, 1000)
allowances = st.builds(Allowance, limits, limits, limits).filter(lambda each: each.limits_anything)
steps = st.lists(
    st.tuples(st.floats(0, 100_000), st.integers(0, 1000), st.floats(0, 1), st.booleans()), max_size=60
)
Steps = list[tuple[float, int, float, bool]]


@given(allowances, steps, st.floats(1.6e9, 1.8e9))
def test_no_span_grants_more_than_a_full_bucket_and_its_refill(
    allowance: Allowance, steps: Steps, now_s: float
) -> None:
    levels: Levels | None = None
    granted: list[tuple[float, int, int]] = []  # when, tokens kept, day
    for wait_s, tokens, unused, _ in steps:
        now_s += wait_s
        if allowance.most_tokens:
            tokens = min(tokens, allowance.most_tokens)
        levels, verdict = take(allowance, levels, tokens, now_s)
        if verdict.refused:
            continue
        back = int(tokens * unused)
        levels = give(allowance, levels, back, verdict.day, now_s)
        granted.append((now_s, tokens - back, verdict.day))
    for first, (begin_s, _, _) in enumerate(granted):
        tokens = 0
        for number, (end_s, used, _) in enumerate(granted[first:], 1):
            tokens += used
            minutes = (end_s - begin_s) / 60
            if allowance.requests_per_minute:
                assert number <= allowance.requests_per_minute * (1 + minutes) + 1e-6
            if allowance.tokens_per_minute:
                assert tokens <= allowance.tokens_per_minute * (1 + minutes) + 1e-3
    if allowance.tokens_per_day:
        for day in {day for _, _, day in granted}:
            assert sum(used for _, used, on in granted if on == day) <= allowance.tokens_per_day


@given(allowances, steps, st.floats(1.6e9, 1.8e9))
def test_who_waits_as_long_as_it_was_told_gets_what_it_asked_for(
    allowance: Allowance, steps: Steps, now_s: float
) -> None:
    levels: Levels | None = None
    for wait_s, tokens, _, _ in steps:
        now_s += wait_s
        if allowance.most_tokens:
            tokens = min(tokens, allowance.most_tokens)
        before = levels
        levels, verdict = take(allowance, levels, tokens, now_s)
        rounds = 0
        while verdict.refused:
            if before is not None and not rounds:
                assert levels.day_tokens <= before.day_tokens  # a refusal takes nothing
            assert verdict.wait_s > 0
            assert verdict.wait_s <= (DAY_S if verdict.refused == "day" else 60.0)
            now_s += verdict.wait_s + 1e-3  # times are floats: a thousandth more
            levels, verdict = take(allowance, levels, tokens, now_s)
            rounds += 1
            assert rounds <= 3  # one for each account at most


@given(allowances, steps, st.floats(1.6e9, 1.8e9))
def test_a_bucket_is_never_fuller_than_full(allowance: Allowance, steps: Steps, now_s: float) -> None:
    levels: Levels | None = None
    for wait_s, tokens, _, backwards in steps:
        now_s += -wait_s if backwards else wait_s  # clocks of hosts differ
        levels, verdict = take(allowance, levels, tokens, now_s)
        levels = give(allowance, levels, 2 * tokens, verdict.day, now_s)
        if allowance.requests_per_minute:
            assert 0 <= levels.requests <= allowance.requests_per_minute
        if allowance.tokens_per_minute:
            assert 0 <= levels.tokens <= allowance.tokens_per_minute
        assert levels.day_tokens >= 0


def test_a_limit_that_comes_later_begins_full() -> None:
    free = Allowance(requests_per_minute=10)
    levels, _ = take(free, None, 500, 1000.0)
    _, verdict = take(Allowance(10, 100), levels, 100, 1000.0)
    assert not verdict.refused and verdict.tokens == 0 and verdict.requests == 8


def test_the_day_begins_anew_at_midnight() -> None:
    allowance = Allowance(tokens_per_day=100)
    evening_s = 20_000 * DAY_S - 60.0
    levels, verdict = take(allowance, None, 100, evening_s)
    assert not verdict.refused
    levels, verdict = take(allowance, levels, 1, evening_s)
    assert verdict.refused == "day" and verdict.wait_s == 60.0
    levels, verdict = take(allowance, levels, 100, evening_s + 60.0)
    assert not verdict.refused and verdict.day == 20_000
    levels = give(allowance, levels, 50, 19_999, evening_s + 61.0)  # of yesterday: gone with it
    assert levels.day_tokens == 100
