"""Answers in this process: the store of a mesh without Redis, of the tests and of the twin.

Least recently used entries go first when `max_bytes` is passed; every entry has a TTL by the Clock port. A purge
leaves a mark with its number, which outlives every ticket that could be older (`MARK_TTL_S`).
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from ..clock import Clock, SystemClock
from .key import CacheKey
from .store import Found, StoreStats, Ticket

MARK_TTL_S = 4 * 3600.0
"""No request lives this long (LimitsConfig.max_deadline_s is an hour by default), so no older ticket comes back."""
ENTRY_OVERHEAD_BYTES = 300


class _Entry(msgspec.Struct, gc=False):
    value: bytes
    expires_s: float
    person: bytes
    scopes: tuple[bytes, ...]


class MemoryStore:
    """A ResponseStore in a dictionary."""

    def __init__(self, max_bytes: int = 256 * 1024 * 1024, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._max_bytes = max_bytes
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self._purged: OrderedDict[bytes, tuple[int, float]] = OrderedDict()
        self._sequence = 0
        self._bytes = 0
        self._counts = dict.fromkeys(("gets", "hits", "puts", "refused_puts", "purges"), 0)

    async def get(self, key: CacheKey) -> Found:
        self._counts["gets"] += 1
        ticket = Ticket(key, (self._sequence.to_bytes(8, "little"),))
        entry = self._entries.get(key.wire)
        if entry is None:
            return Found(ticket=ticket)
        left_s = entry.expires_s - self._clock.now_s()
        if left_s <= 0:
            self._drop(key.wire)
            return Found(ticket=ticket)
        self._entries.move_to_end(key.wire)
        self._counts["hits"] += 1
        return Found(entry.value, left_s, entry.person, ticket)

    async def put(self, ticket: Ticket, value: bytes, ttl_s: float) -> bool:
        key = ticket.key
        asked = int.from_bytes(ticket.marks[0], "little")
        if ttl_s <= 0 or any(self._purged.get(scope, (0, 0.0))[0] > asked for scope in key.scopes):
            self._counts["refused_puts"] += 1
            return False
        size = len(value) + ENTRY_OVERHEAD_BYTES
        if size > self._max_bytes:
            self._counts["refused_puts"] += 1
            return False
        self._drop(key.wire)
        self._entries[key.wire] = _Entry(value, self._clock.now_s() + ttl_s, key.person, key.scopes)
        self._bytes += size
        while self._bytes > self._max_bytes:
            self._drop(next(iter(self._entries)))
        self._counts["puts"] += 1
        return True

    async def purge(self, scope: bytes) -> None:
        now_s = self._clock.now_s()
        self._counts["purges"] += 1
        self._sequence += 1
        self._purged[scope] = (self._sequence, now_s)
        self._purged.move_to_end(scope)
        for wire in [wire for wire, entry in self._entries.items() if scope in entry.scopes]:
            self._drop(wire)
        while self._purged and next(iter(self._purged.values()))[1] < now_s - MARK_TTL_S:
            self._purged.popitem(last=False)

    def stats(self) -> StoreStats:
        return StoreStats("memory", entries=len(self._entries), bytes=self._bytes, **self._counts)

    async def close(self) -> None:
        self._entries.clear()
        self._bytes = 0

    def check_integrity(self) -> None:
        """Raises AssertionError when the byte count does not match the entries."""
        total = sum(len(entry.value) + ENTRY_OVERHEAD_BYTES for entry in self._entries.values())
        assert total == self._bytes <= self._max_bytes, (total, self._bytes, self._max_bytes)

    def _drop(self, wire: bytes) -> None:
        entry = self._entries.pop(wire, None)
        if entry is not None:
            self._bytes -= len(entry.value) + ENTRY_OVERHEAD_BYTES
