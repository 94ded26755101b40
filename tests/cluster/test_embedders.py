"""The embedding models that ship, out of their packages and without a network: paraphrases are nearer than others."""

from __future__ import annotations

import numpy as np
import pytest

from services.cache.question import MAX_TEXT_CHARS
from services.embedding.embedder import Embedder
from services.embedding.factory import open_embedder
from services.errors import ConfigError

PAIRS = {
    "minilm": ("How do I cancel my order?", "How can I cancel an order?", "How do I bake bread?"),
    "e5": ("怎么取消我的订单？", "如何取消订单？", "怎么烤面包？"),
}


@pytest.fixture(scope="module", params=sorted(PAIRS))
def embedder(request: pytest.FixtureRequest) -> tuple[Embedder, tuple[str, str, str]]:
    return open_embedder(request.param), PAIRS[request.param]


def test_paraphrases_are_near(embedder: tuple[Embedder, tuple[str, str, str]]) -> None:
    model, texts = embedder
    one, same, other = model.embed(texts)
    assert float(one @ same) > float(one @ other) + 0.05
    assert np.allclose([float(row @ row) for row in (one, same, other)], 1.0, atol=1e-3)
    assert len(one) == model.dimensions


def test_the_end_of_the_longest_question_is_seen(embedder: tuple[Embedder, tuple[str, str, str]]) -> None:
    model, _ = embedder
    start = ("取消订单" * MAX_TEXT_CHARS)[: MAX_TEXT_CHARS - 2]
    one, other = model.embed([start + "一二", start + "面包"])
    assert float(one @ other) < 0.99999


def test_what_is_no_model_is_named() -> None:
    with pytest.raises(ConfigError, match="no model"):
        open_embedder("/nowhere/at/all")
