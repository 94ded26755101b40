"""Turns in this process: for a mesh of one gateway without Redis, and for tests. Gone when the process is."""

from __future__ import annotations

from collections.abc import Sequence

from ..cache.memory_store import MemoryStore
from ..clock import Clock, SystemClock


class MemoryTurnStore(MemoryStore):
    """A TurnStore in dictionaries."""

    def __init__(self, max_bytes: int = 256 * 1024 * 1024, clock: Clock | None = None) -> None:
        super().__init__(max_bytes, clock)
        self._now_s = (clock or SystemClock()).now_s
        self._used: dict[tuple[bytes, int], tuple[int, float]] = {}

    async def used(self, tag: bytes, windows: Sequence[int]) -> int | None:
        now_s = self._now_s()
        found = [self._used.get((tag, window), (0, 0.0)) for window in windows]
        return max(0, sum(num for num, until_s in found if until_s > now_s))

    async def add(self, tag: bytes, window: int, num_bytes: int, life_s: float) -> None:
        now_s = self._now_s()
        num, until_s = self._used.get((tag, window), (0, 0.0))
        self._used[tag, window] = ((num if until_s > now_s else 0) + num_bytes, now_s + life_s)
        oldest = next(iter(self._used))
        if self._used[oldest][1] <= now_s:
            del self._used[oldest]
