"""The port of the journal's store: what outlives the authority. Adapters: memory_store.py, redis_store.py.

Rules: records (opaque bytes) under keys, in an order that fences: each record has a place (epoch, number), and one
is taken only at a place behind every record that is there. Knows nothing of answers and gateways.

Invariants (tests/contracts/test_journal_store.py runs them over every adapter, as one stateful machine):

1. `load` gives exactly the accepted records of that key in the order of their places, or nothing; never an altered
   one, and never some without those before them.
2. Of two records for one place, or one behind the other, the later is refused, whoever sends it.
3. A record that does not `open` a key is refused where nothing is kept: what expired or was dropped does not come
   back in half.
4. After a purge of one of the key's scopes nothing written before it is given again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from ..cache.key import CacheKey

Place = tuple[int, int]
"""(epoch, number), compared in that order; both at least 1."""


class StoreDown(Exception):
    """The store does not answer now."""


class Write(NamedTuple):
    """One record to keep for `ttl_s` seconds (all of its key's records live as long as the last one's says).
    `record` empty: drop the key and everything under it."""

    key: CacheKey
    place: Place
    record: bytes
    ttl_s: float
    opens: bool = False


class Kept(NamedTuple):
    """One record as it is given back."""

    place: Place
    record: bytes


class JournalStore(Protocol):
    """Keeps records. All methods are called on one event loop."""

    async def load(self, key: CacheKey) -> list[Kept]:
        """Everything under a key; empty when there is nothing. To be called before the first write of a key.
        Raises StoreDown within the adapter's time bound."""
        ...

    async def write(self, writes: Sequence[Write]) -> list[bool]:
        """In order. False: the record is refused (invariants 2, 3). Raises StoreDown: any of them may be kept."""
        ...

    async def sweep(self, tenant: bytes, person: bytes, *, remove: bool) -> int:
        """How many answers lie there for a person (tags as in CacheKey), readable or not; `remove` takes them away.
        Raises StoreDown."""
        ...

    async def close(self) -> None:
        """Let go of connections. Idempotent."""
        ...
