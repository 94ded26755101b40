"""When to come back to a gateway that does not know its model yet."""

from __future__ import annotations

import pytest

from services.gateway.readiness import LONGEST_WAIT_S, READING_S, Loading


@pytest.mark.parametrize(
    ("waited_s", "expected_s"), [(0.0, READING_S), (8.0, 8.0), (20.0, 20.0), (600.0, LONGEST_WAIT_S)]
)
def test_as_long_again_as_it_took_so_far(waited_s: float, expected_s: float) -> None:
    loading = Loading(100.0)
    told = [loading.retry_after_s(100.0 + waited_s) for _ in range(100)]
    assert all(0.5 * expected_s <= one < 1.5 * expected_s for one in told)
    assert sum(told) / len(told) == pytest.approx(expected_s, rel=0.02)


def test_nobody_is_told_the_same_and_no_moment_gets_many() -> None:
    loading = Loading(0.0)
    told = sorted(loading.retry_after_s(10.0) for _ in range(1000))
    assert len(set(told)) == 1000
    for tenth in range(10):
        low = 5.0 + tenth
        assert 90 <= sum(low <= one < low + 1.0 for one in told) <= 110


def test_once_the_engines_are_found_it_is_soon() -> None:
    loading = Loading(0.0)
    loading.found()
    assert loading.retry_after_s(300.0) < 1.5 * READING_S
