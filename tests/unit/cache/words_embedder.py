"""An embedder for tests: a bag of hashed words, so that texts which share words are near, in microseconds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

from services.embedding.embedder import Vectors

DIMENSIONS = 64
SMALL_WORDS = frozenset(
    [
        "a",
        "an",
        "the",
        "do",
        "does",
        "i",
        "my",
        "can",
        "could",
        "please",
        "how",
        "to",
        "is",
        "it",
        "of",
        "your",
        "what",
    ]
)


class WordsEmbedder:
    """An Embedder. The same words in any order and with any small words are the same vector."""

    name = "words"
    dimensions = DIMENSIONS

    def __init__(self) -> None:
        self.texts: list[str] = []

    def embed(self, texts: Sequence[str]) -> Vectors:
        self.texts.extend(texts)
        rows = np.zeros((len(texts), DIMENSIONS), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in set(re.findall(r"\w+", text.lower())) - SMALL_WORDS:
                digest = blake2b(word.encode(), digest_size=8).digest()
                row += np.random.default_rng(int.from_bytes(digest, "little")).standard_normal(
                    DIMENSIONS, dtype=np.float32
                )
            row /= max(float(np.linalg.norm(row)), 1e-9)
        return rows
