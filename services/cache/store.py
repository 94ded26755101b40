"""The port of the response cache's second tier. Adapters: memory_store.py, redis_store.py.

Rules: bytes under keys, with scopes that can be destroyed; knows nothing of answers, gateways or flights.

Invariants (tests/contracts/test_response_store.py runs them over every adapter, as one stateful machine):

1. `get` returns exactly what the last accepted `put` of that key stored, or nothing; never another key's
   value, never a shortened or altered one.
2. After `purge(scope)` returned, nothing stored before it under that scope is ever returned again, by any
   process that shares the store.
3. A `put` whose ticket is older than a purge of one of its scopes has no effect (no resurrection): work that
   began before a person was forgotten cannot bring that person's answers back.
4. `get` and `put` end within the adapter's time bound and never raise; a store that cannot answer is a miss
   without a ticket.
5. After `sweep(…, remove=True)` no bytes of a person's values are left, readable or not, and nobody else's are gone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from .key import CacheKey


class StoreDown(Exception):
    """The store cannot confirm a purge now. The adapter keeps the purge, refuses what it covers, and confirms
    it when the store is back."""


class Ticket(msgspec.Struct, frozen=True):
    """The right to store under a key, as of one look-up. `marks` are the adapter's own, one per scope."""

    key: CacheKey
    marks: tuple[bytes, ...]


class Found(msgspec.Struct, frozen=True):
    """What a look-up gave. `value` None is a miss; `ticket` None: the store did not answer, nothing may be
    stored.

    `ttl_s` is what is left of the value's life; `person` is the tag of whoever it was made for.
    """

    value: bytes | None = None
    ttl_s: float = 0.0
    person: bytes = b""
    ticket: Ticket | None = None


class StoreStats(msgspec.Struct, frozen=True):
    """Counters since the start, and sizes where the adapter knows them (-1: it does not)."""

    kind: str
    up: bool = True
    gets: int = 0
    hits: int = 0
    puts: int = 0
    refused_puts: int = 0
    purges: int = 0
    failures: int = 0
    poisoned: int = 0
    entries: int = -1
    bytes: int = -1


class ResponseStore(Protocol):
    """Keeps answers. All methods are called on one event loop."""

    async def get(self, key: CacheKey) -> Found:
        """Look a key up. Never raises."""
        ...

    def look(self, key: CacheKey, told: Callable[[Found], None]) -> None:
        """As `get`, for whoever has microseconds: `told` is called once, perhaps before this returns."""
        ...

    async def put(self, ticket: Ticket, value: bytes, ttl_s: float) -> bool:
        """Store `value` under the ticket's key for `ttl_s` seconds (> 0). False: not stored. Never raises."""
        ...

    async def purge(self, scope: bytes) -> None:
        """Destroy everything under a scope (CacheKey.scopes). Raises StoreDown when that is not confirmed
        yet; it is in force in this process all the same."""
        ...

    async def sweep(self, tenant: bytes, person: bytes, *, remove: bool) -> int:
        """How many values lie there for a person (tags as in CacheKey), also such as a purge made unreadable; `remove`
        takes them away. Looks at what is stored, not at what this process knows of it. Raises StoreDown."""
        ...

    def stats(self) -> StoreStats:
        """Counters so far."""
        ...

    async def close(self) -> None:
        """Let go of connections. Idempotent."""
        ...
