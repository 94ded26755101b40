"""Answers in this process: the store of a mesh without Redis, of the tests and of the twin.

A purge leaves a mark with its number, which outlives every ticket that could be older (`MARK_TTL_S`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from ..clock import Clock, SystemClock
from .key import CacheKey
from .scoped_lru import ScopedLru
from .store import Found, StoreStats, Ticket

MARK_TTL_S = 4 * 3600.0
"""No request lives this long (LimitsConfig.max_deadline_s is an hour by default), so no older ticket comes
back."""


class MemoryStore:
    """A ResponseStore in a dictionary."""

    def __init__(self, max_bytes: int = 256 * 1024 * 1024, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._entries: ScopedLru[bytes] = ScopedLru(max_bytes)
        self._purged: OrderedDict[bytes, tuple[int, float]] = OrderedDict()
        self._sequence = 0
        self._counts = dict.fromkeys(("gets", "hits", "puts", "refused_puts", "purges"), 0)

    async def get(self, key: CacheKey) -> Found:
        return self._found(key)

    def look(self, key: CacheKey, told: Callable[[Found], None]) -> None:
        told(self._found(key))

    def _found(self, key: CacheKey) -> Found:
        self._counts["gets"] += 1
        now_s = self._clock.now_s()
        ticket = Ticket(key, (self._sequence.to_bytes(8, "little"),))
        entry = self._entries.get(key.wire, now_s)
        if entry is None:
            return Found(ticket=ticket)
        self._counts["hits"] += 1
        return Found(entry.value, entry.expires_s - now_s, entry.person, ticket)

    async def put(self, ticket: Ticket, value: bytes, ttl_s: float) -> bool:
        key = ticket.key
        asked = int.from_bytes(ticket.marks[0], "little")
        stale = any(self._purged.get(scope, (0, 0.0))[0] > asked for scope in key.scopes)
        expires_s = self._clock.now_s() + ttl_s
        if (
            stale
            or ttl_s <= 0
            or not self._entries.put(key.wire, value, len(value), expires_s, key.person, key.scopes)
        ):
            self._counts["refused_puts"] += 1
            return False
        self._counts["puts"] += 1
        return True

    async def purge(self, scope: bytes) -> None:
        now_s = self._clock.now_s()
        self._counts["purges"] += 1
        self._sequence += 1
        self._purged[scope] = (self._sequence, now_s)
        self._purged.move_to_end(scope)
        self._entries.purge(scope)
        while next(iter(self._purged.values()))[1] < now_s - MARK_TTL_S:
            self._purged.popitem(last=False)

    async def sweep(self, tenant: bytes, person: bytes, *, remove: bool) -> int:
        scope = b"p" + person
        return self._entries.purge(scope) if remove else self._entries.held(scope)

    def stats(self) -> StoreStats:
        return StoreStats("memory", entries=len(self._entries), bytes=self._entries.num_bytes, **self._counts)

    async def close(self) -> None:
        self._entries.clear()

    def check_integrity(self) -> None:
        """Raises AssertionError when sizes or the index are wrong."""
        self._entries.check_integrity()
