"""Vectors of passages that a gateway keeps for the next question about the same documents. Pure: times come in.

Rules: as for the answers of the local tier: a purge forgets them, what was read before a purge is not kept after it,
and without a link to the Cache, which tells of purges, nothing is read. Holds no text: keys are a tenant's keyed
digests.
"""

from __future__ import annotations

from .key import CacheKey
from .scoped_lru import ScopedLru

TTL_S = 300.0


class LocalVectors:
    """`age` changes with every purge: what is put must have been read in the same age."""

    def __init__(self, max_bytes: int) -> None:
        self._kept: ScopedLru[bytes] = ScopedLru(max_bytes)
        self.age = 0

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: CacheKey, now_s: float) -> bytes | None:
        """Little-endian float32, or None."""
        entry = self._kept.get(key.wire, now_s)
        return None if entry is None else entry.value

    def put(self, key: CacheKey, vector: bytes, now_s: float, age: int) -> None:
        """Keep it for TTL_S, unless something was purged since `age`."""
        if age == self.age:
            self._kept.put(key.wire, vector, len(vector), now_s + TTL_S, key.person, key.scopes)

    def held(self, scope: bytes) -> int:
        """Vectors under `scope`."""
        return self._kept.held(scope)

    def clear(self) -> None:
        """Forget everything: purges may have gone unheard."""
        self.age += 1
        self._kept.clear()

    def purge(self, scope: bytes) -> None:
        """Forget what is under `scope`."""
        self.age += 1
        self._kept.purge(scope)
