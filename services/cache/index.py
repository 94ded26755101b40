"""The nearest-neighbour port, and the exact index that ships beside it. Adapter: usearch_index.py.

Rules: vectors under integer ids; knows no texts, tenants or answers. One index holds one namespace, so that a look-up
cannot see another tenant's entries however near they are.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]


class Index(Protocol):
    """Cosine similarity over unit vectors. tests/contracts/test_index.py runs over every adapter."""

    def add(self, entry_id: int, vector: Vector) -> None:
        """Keep a vector (or replace it)."""
        ...

    def remove(self, entry_id: int) -> None:
        """Forget a vector, if it is there."""
        ...

    def nearest(self, vector: Vector, num: int) -> list[tuple[int, float]]:
        """Up to `num` (id, similarity), the most similar first. An approximate index may miss some."""
        ...

    def __len__(self) -> int: ...


class ExactIndex:
    """All similarities, by one matrix product: right by definition, 1 ms for 10,000 entries of 384 dimensions."""

    def __init__(self, dimensions: int) -> None:
        self._rows = np.zeros((16, dimensions), dtype=np.float32)
        self._ids: list[int] = []
        self._at: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, entry_id: int, vector: Vector) -> None:
        at = self._at.get(entry_id)
        if at is None:
            at = len(self._ids)
            if at == len(self._rows):
                self._rows = np.concatenate([self._rows, np.zeros_like(self._rows)])
            self._ids.append(entry_id)
            self._at[entry_id] = at
        self._rows[at] = vector

    def remove(self, entry_id: int) -> None:
        at = self._at.pop(entry_id, None)
        if at is None:
            return
        last = self._ids.pop()
        if last != entry_id:
            self._ids[at] = last
            self._at[last] = at
            self._rows[at] = self._rows[len(self._ids)]

    def nearest(self, vector: Vector, num: int) -> list[tuple[int, float]]:
        if not self._ids:
            return []
        likeness = self._rows[: len(self._ids)] @ vector
        num = min(num, len(likeness))
        best = np.argpartition(-likeness, num - 1)[:num]
        ordered = best[np.argsort(-likeness[best])]
        return [(self._ids[int(at)], float(likeness[int(at)])) for at in ordered]
