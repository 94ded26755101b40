"""A TokenEmbedder for tests: a bag of hashed token ids, in microseconds. Its batches are kept, to be looked at."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from threading import Event

import numpy as np

from services.embedding.embedder import Vectors
from services.request import unpack_ids

DIMENSIONS = 8


def vector_of(ids: Sequence[int]) -> Vectors:
    """What the embedder makes of these ids."""
    row = np.zeros(DIMENSIONS, dtype=np.float32)
    for token_id in ids:
        seed = int.from_bytes(blake2b(b"%d" % token_id, digest_size=8).digest(), "little")
        row += np.random.default_rng(seed).standard_normal(DIMENSIONS, dtype=np.float32)
    return row / max(float(np.linalg.norm(row)), 1e-9)


class IdsEmbedder:
    """`gate` set: batches go through; clear it and the model stands still. `fails` makes it raise."""

    name = "ids"
    dimensions = DIMENSIONS

    def __init__(self, max_tokens: int = 64, vocab_size: int = 421) -> None:
        self.max_tokens, self.vocab_size = max_tokens, vocab_size
        self.batches: list[list[bytes]] = []
        self.fails: Exception | None = None
        self.gate = Event()
        self.gate.set()

    def embed(self, texts: Sequence[str]) -> Vectors:
        raise NotImplementedError

    def embed_ids(self, rows: Sequence[bytes]) -> Vectors:
        self.batches.append(list(rows))
        assert self.gate.wait(60)
        if self.fails is not None:
            raise self.fails
        return np.stack([vector_of(unpack_ids(row)) for row in rows])
