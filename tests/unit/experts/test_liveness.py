"""Tokens move, or the engine is stuck. The numbered rules of liveness.py, one by one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.experts.engine import EngineLoadSample
from services.experts.liveness import STEP_FACTOR, LivenessState, Verdict, begin, observe

PERIOD_S = 0.1


def sample(running: int = 1, tokens: int = 0, step_s: float = 0.0, lost: str = "") -> EngineLoadSample:
    return EngineLoadSample(running, 0, 1000, step_s, tokens, lost)


def watch(state: LivenessState, samples: list[EngineLoadSample], start_s: float = 0.0) -> LivenessState:
    for i, one in enumerate(samples, 1):
        state = observe(state, one, start_s + i * PERIOD_S)
    return state


def test_an_idle_engine_is_never_stuck() -> None:
    state = watch(begin(1.0, PERIOD_S, 0.0), [sample(running=0)] * 1000)
    assert state.verdict is Verdict.IDLE


def test_work_without_progress_is_stuck_after_the_allowance_and_not_before() -> None:
    state = begin(1.0, PERIOD_S, 0.0)
    state = watch(state, [sample()] * 10)
    assert state.verdict is Verdict.MOVING
    assert watch(state, [sample()] * 1, 1.0).verdict is Verdict.STUCK


def test_waiting_streams_count_as_work() -> None:
    waiting = EngineLoadSample(0, 3, 1000, 0.0, 0)
    assert watch(begin(1.0, PERIOD_S, 0.0), [waiting] * 20).verdict is Verdict.STUCK


def test_stuck_stays_stuck() -> None:
    state = watch(begin(1.0, PERIOD_S, 0.0), [sample()] * 20)
    assert watch(state, [sample(tokens=5), sample(running=0)], 2.0).verdict is Verdict.STUCK


def test_a_dead_engine_is_stuck_at_once() -> None:
    state = observe(begin(1.0, PERIOD_S, 0.0), sample(running=0, lost="it died"), PERIOD_S)
    assert state.verdict is Verdict.STUCK


def test_a_prefill_step_without_a_token_is_progress() -> None:
    samples = [sample(), sample(), sample(step_s=0.3)] * 20
    assert watch(begin(1.0, PERIOD_S, 0.0), samples).verdict is Verdict.MOVING


def test_long_steps_widen_the_allowance_and_are_forgotten() -> None:
    state = observe(begin(1.0, PERIOD_S, 0.0), sample(step_s=2.0), PERIOD_S)
    assert state.allowance_s > 0.99 * 2.0 * STEP_FACTOR
    later = watch(state, [sample(running=0)] * 3000, PERIOD_S)
    assert later.allowance_s == 1.0


def test_the_full_step_of_the_warm_up_is_never_forgotten() -> None:
    state = begin(1.0, PERIOD_S, 0.0, warmup_step_s=2.0)
    later = watch(state, [sample(running=0)] * 3000)
    assert later.allowance_s == 2.0 * STEP_FACTOR


def test_time_when_nobody_looked_is_no_evidence() -> None:
    state = watch(begin(1.0, PERIOD_S, 0.0), [sample()] * 5)
    state = observe(state, sample(), 30.0)
    assert state.verdict is Verdict.MOVING
    assert watch(state, [sample()] * 10, 30.0).verdict is Verdict.STUCK


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60))
def test_an_engine_whose_tokens_grow_in_time_is_never_stuck(growth: list[int]) -> None:
    """However irregular: no gap of more than nine samples without a token."""
    total, samples, gap = 0, [], 0
    for grown in growth:
        gap = 0 if grown else gap + 1
        total += grown or (gap % 9 == 0)
        samples.append(sample(tokens=total))
    assert watch(begin(1.0, PERIOD_S, 0.0), samples).verdict is not Verdict.STUCK
