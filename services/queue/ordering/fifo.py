"""First in, first out by arrival: the ordering to compare with. Tenants are not told apart."""

from __future__ import annotations

from ..entry import Entry
from .heap import EntryHeap


class Policy:
    """See `Ordering`. Re-registered requests keep their original arrival, and so their place."""

    def __init__(self, level: int | None) -> None:
        self._heap = EntryHeap(level)

    def add(self, entry: Entry, returning: bool = False) -> None:
        self._heap.push(self.key(entry), entry)

    def key(self, entry: Entry) -> float:
        """Who has less goes first, alike by registration. A policy that only sorts replaces this; what it looks at must
        not change while the entry waits."""
        return entry.arrived_s

    def peek(self) -> Entry | None:
        return self._heap.peek()

    def discard(self, entry: Entry) -> None:
        self._heap.forget()

    def charge(self, tenant: str, cost: float) -> None:
        """Nobody's service matters here."""

    def head_of(self, tenant: str) -> Entry | None:
        return None

    def counter_of(self, tenant: str) -> float:
        return 0.0

    def shed(self) -> Entry | None:
        return self._heap.late()

    def __len__(self) -> int:
        return self._heap.live

    def check_integrity(self) -> None:
        self._heap.check_integrity()
