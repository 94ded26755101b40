"""How the churn scene draws its kills and counts its tokens.

1. Each whole minute has exactly its kills, somewhere within it, and what is over is carried to the next.
2. What came in neighbouring spans adds up to what came in both.
3. A wrong answer delivered nothing; a unary one came over the seconds that it took to make, not at its end.
"""

from __future__ import annotations

import random

import pytest

from load_tests.survival.churn import STEP_S, TOKENS, delivered, offsets
from load_tests.survival.streams import Stream


@pytest.mark.parametrize(("per_minute", "counts"), [(1.0, [1] * 5), (0.5, [0, 1, 0, 1, 0]), (2.0, [2] * 5)])
def test_kills_of_each_minute(per_minute: float, counts: list[int]) -> None:
    found = offsets(random.Random(1), 300.0, per_minute)
    assert found == sorted(found)
    assert [sum(60 * minute <= at_s < 60 * (minute + 1) for at_s in found) for minute in range(5)] == counts


def answered(kind: str, times: list[float]) -> Stream:
    stream = Stream(kind, 0)
    stream.event_s, stream.usage = times, {"completion_tokens": TOKENS}
    return stream


def test_spans_add_up() -> None:
    streams = [answered("plain", [10.0 + 0.1 * i for i in range(40)]), answered("unary", [13.0])]
    whole = delivered(streams, 0.0, 20.0)
    assert whole == pytest.approx(2 * TOKENS)
    assert delivered(streams, 0.0, 12.0) + delivered(streams, 12.0, 20.0) == pytest.approx(whole)
    assert delivered(streams[1:], 13.0 - TOKENS * STEP_S / 4, 20.0) == pytest.approx(TOKENS / 4)


def test_what_is_wrong_does_not_count() -> None:
    stream = answered("plain", [1.0])
    stream.error = "wrong"
    assert delivered([stream], 0.0, 2.0) == 0.0
