"""One suite over every nearest-neighbour index."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from services.cache.index import ExactIndex, Index
from services.cache.usearch_index import UsearchIndex

DIMENSIONS = 16


@pytest.fixture(params=[ExactIndex, UsearchIndex], ids=["exact", "usearch"])
def index(request: pytest.FixtureRequest) -> Index:
    make: Callable[[int], Index] = request.param
    return make(DIMENSIONS)


def unit(rng: np.random.Generator, num: int) -> np.ndarray:
    rows = rng.normal(size=(num, DIMENSIONS)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_an_empty_index_finds_nothing(index: Index) -> None:
    assert index.nearest(unit(np.random.default_rng(1), 1)[0], 3) == []
    index.remove(7)
    assert len(index) == 0


def test_it_finds_what_is_nearest_in_order(index: Index) -> None:
    rng = np.random.default_rng(2)
    rows = unit(rng, 300)
    for number, row in enumerate(rows):
        index.add(number, row)
    for query in unit(rng, 20):
        truth = np.argsort(-(rows @ query))[:5]
        found = index.nearest(query, 5)
        assert [number for number, _ in found] == truth.tolist()
        assert [likeness for _, likeness in found] == pytest.approx((rows @ query)[truth], abs=1e-4)


def test_what_is_removed_or_replaced_is_gone(index: Index) -> None:
    rng = np.random.default_rng(3)
    rows = unit(rng, 20)
    for number, row in enumerate(rows):
        index.add(number, row)
    for number in range(0, 20, 2):
        index.remove(number)
    index.add(1, rows[0])
    assert len(index) == 10
    assert {number for number, _ in index.nearest(rows[0], 20)} == set(range(1, 20, 2))
    assert index.nearest(rows[0], 1)[0] == (1, pytest.approx(1.0, abs=1e-4))
