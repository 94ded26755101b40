"""Workloads and shapes: the same seed, the same questions; the right number of users."""

from __future__ import annotations

from itertools import islice

import pytest

from load_tests.shapes import SHAPES
from load_tests.workloads import Mix, workload


def test_the_same_seed_asks_the_same() -> None:
    assert list(islice(workload(7), 50)) == list(islice(workload(7), 50))
    assert list(islice(workload(7), 50)) != list(islice(workload(8), 50))


def test_a_mix_has_its_shares_and_sizes() -> None:
    asks = list(islice(workload(1, Mix(faq=0.5, chat=0.5, long=0.0, max_tokens=20)), 2000))
    faq = [ask for ask in asks if ask.kind == "faq"]
    assert 0.45 < len(faq) / len(asks) < 0.55
    assert all(1 <= ask.max_tokens <= 20 for ask in asks)
    assert len({ask.text for ask in faq}) <= 12 < len({ask.text for ask in asks if ask.kind == "chat"})
    assert all(ask.greedy for ask in faq)


def test_some_questions_are_asked_more_often() -> None:
    texts = [ask.text for ask in islice(workload(1, Mix(faq=1, chat=0, long=0)), 2000)]
    counts = sorted(map(texts.count, set(texts)))
    assert counts[-1] > 5 * counts[0]


def test_long_ones_are_long_but_bounded() -> None:
    sizes = [len(ask.text.split()) for ask in islice(workload(1, Mix(0, 0, 1, long_words=100)), 300)]
    assert 80 < sorted(sizes)[150] < 125 and max(sizes) <= 410


def test_a_mix_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="shares"):
        next(workload(1, Mix(0, 0, 0)))


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_stay_between_one_and_all(name: str) -> None:
    users = [SHAPES[name](second, 50, 60.0) for second in range(61)]
    assert all(1 <= count <= 50 for count in users)
    assert max(users) == 50


def test_what_shapes_look_like() -> None:
    assert [SHAPES["ramp"](second, 10, 100.0) for second in (0, 50, 100)] == [1, 5, 10]
    assert [SHAPES["spike"](second, 10, 100.0) for second in (0, 39, 50, 61)] == [2, 2, 10, 2]
    assert [SHAPES["wave"](second, 10, 100.0) for second in (0, 25, 50, 75)] == [1, 10, 1, 10]
