"""The verdict of a load test."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from load_tests.slo import PRESETS, Answered, Slo, judge, percentile

FAST = Answered(100.0, 500.0, (20.0, 20.0), 3)
SLOW = Answered(3000.0, 5000.0, (20.0,), 2)
STALLED = Answered(100.0, 2000.0, (20.0, 900.0), 3)
REFUSED = Answered(5.0, 5.0, error="429 queue_full")
SLO = Slo(ttft_p95_ms=1000, itl_p95_ms=100, error_share=0.05, goodput_share=0.9, min_requests=3)


def missed(*samples: Answered, slo: Slo = SLO) -> set[str]:
    return {row.name for row in judge(samples, slo, 10.0).rows if not row.met}


def test_good_answers_meet_everything() -> None:
    verdict = judge([FAST] * 20, SLO, 10.0)
    assert verdict.met and str(verdict).startswith("SLOs met")
    assert verdict.figures["goodput requests/s"] == 2.0
    assert verdict.figures["tokens/s"] == 6.0


def test_slow_starts_and_stalls_are_missed_by_name() -> None:
    assert missed(*[SLOW] * 10) == {"TTFT p95 ms", "goodput share"}
    assert missed(*[STALLED] * 10) == {"ITL p95 ms", "goodput share"}


def test_a_few_slow_ones_are_within_p95_but_not_within_goodput_when_many() -> None:
    assert missed(*[FAST] * 96, *[SLOW] * 4) == set()
    assert missed(*[FAST] * 89, *[SLOW] * 11) == {"TTFT p95 ms", "goodput share"}


def test_refusing_does_not_make_a_system_fast() -> None:
    assert missed(*[FAST] * 50, *[REFUSED] * 50) == {"error share", "goodput share"}


def test_a_run_without_answers_is_missed() -> None:
    assert missed() == {"requests", "goodput share", "TTFT p95 ms"}
    assert {"requests", "error share", "TTFT p95 ms"} <= missed(REFUSED)


def test_bounds_of_zero_are_no_bounds() -> None:
    free = Slo(goodput_share=0.0, min_requests=0)
    assert missed(SLOW, STALLED, slo=free) == set()


def test_one_token_answers_have_no_gaps_to_judge() -> None:
    assert missed(*[Answered(10.0, 10.0, (), 1)] * 5) == set()


@pytest.mark.parametrize(("share", "value"), [(0.0, 1), (0.5, 2), (0.75, 3), (0.76, 4), (0.95, 4), (1.0, 4)])
def test_nearest_rank(share: float, value: float) -> None:
    assert percentile([4, 2, 3, 1], share) == value
    assert percentile([], share) == inf


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0, 1))
def test_a_percentile_is_a_value_that_enough_are_not_above(values: list[float], share: float) -> None:
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values)


def test_every_preset_bounds_start_and_gaps() -> None:
    assert all(slo.ttft_p95_ms and slo.itl_p95_ms for slo in PRESETS.values())
