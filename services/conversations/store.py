"""The port of the conversations' store: the response cache's (cache/store.py), and a count of bytes per tenant.

Adapters: memory_store.py, redis_store.py. Invariants 1–4 of cache/store.py hold (sealed, purged by scope, no
resurrection), and (tests/contracts/test_turn_store.py):

5. `used` is the sum of all `add`s of a tag in the windows asked for, by any process that shares the store, at least
   for the `life_s` of the last `add` to each; None: the store does not answer, or keeps nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..cache.store import ResponseStore


class TurnStore(ResponseStore, Protocol):
    """Keeps turns. All methods are called on one event loop."""

    async def used(self, tag: bytes, windows: Sequence[int]) -> int | None:
        """Bytes counted for a tenant's tag. Never raises."""
        ...

    async def add(self, tag: bytes, window: int, num_bytes: int, life_s: float) -> None:
        """Count bytes (negative: they were deleted) in a window of time. Never raises; may be lost."""
        ...
