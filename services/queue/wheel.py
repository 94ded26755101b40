"""Timers for many entries: insert, remove and expire in constant time, nothing left behind by a removal.

Rules: knows entries' `seq` and times, not what a timer is for. A heap with lazy deletion would keep a granted
request until its deadline (minutes: millions of dead items at 5,000 requests/s); a wheel of dicts keeps none.
"""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar


class _Sequenced(Protocol):
    @property
    def seq(self) -> int: ...


T = TypeVar("T", bound=_Sequenced)


class TimerWheel(Generic[T]):
    """Buckets of `resolution_s`. An item comes due at most one resolution late and never early."""

    def __init__(self, resolution_s: float = 0.1) -> None:
        self._per_s = 1.0 / resolution_s
        self._buckets: dict[int, dict[int, T]] = {}
        self._next = 0

    def add(self, when_s: float, item: T) -> int:
        """Remember `item` until `when_s` (seconds). Returns the slot that `remove` wants."""
        slot = int(when_s * self._per_s) + 1
        if slot < self._next:
            slot = self._next
        try:
            self._buckets[slot][item.seq] = item
        except KeyError:
            self._buckets[slot] = {item.seq: item}
        return slot

    def remove(self, slot: int, item: T) -> None:
        """Forget `item`; unknown ones are ignored."""
        bucket = self._buckets.get(slot)
        if bucket is not None:
            bucket.pop(item.seq, None)
            if not bucket:
                del self._buckets[slot]

    def due(self, now_s: float, budget: int) -> list[T]:
        """At most `budget` items that are due, removed. What is over the budget stays due."""
        current = int(now_s * self._per_s)
        if self._next > current:
            return []
        if (
            current - self._next > len(self._buckets) + 8
        ):  # time jumped: look at the buckets, not at every slot
            self._next = min((slot for slot in self._buckets if slot <= current), default=current)
        taken: list[T] = []
        while self._next <= current:
            bucket = self._buckets.get(self._next)
            if bucket:
                while bucket and len(taken) < budget:
                    taken.append(bucket.popitem()[1])
                if bucket:
                    return taken
            self._buckets.pop(self._next, None)
            if self._next == current:
                break
            self._next += 1
        return taken

    def __len__(self) -> int:
        return sum(len(bucket) for bucket in self._buckets.values())

    def items(self) -> list[T]:
        """Everything that waits, in no order."""
        return [item for bucket in self._buckets.values() for item in bucket.values()]
