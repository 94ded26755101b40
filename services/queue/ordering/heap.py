"""A heap of entries that forgets lazily: what FIFO, EDF and each tenant's own line are made of.

Rules: a data structure, no policy (it has no class `Policy`). Dead entries stay until they surface or outnumber the
living, then one sweep removes them: O(1) amortised.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush

from ..entry import WAITING, Entry


class EntryHeap:
    """Entries by (key, seq). `live` counts those that still wait.

    `level`: of a lane of aged entries, which belong there only while they have that level; None for a band's own.
    An entry that was put back may lie here twice; a sweep also removes such doubles.
    """

    __slots__ = ("items", "level", "live")

    def __init__(self, level: int | None) -> None:
        self.level = level
        self.items: list[tuple[float, int, Entry]] = []
        self.live = 0

    def push(self, key: float, entry: Entry) -> None:
        heappush(self.items, (key, entry.seq, entry))
        self.live += 1

    def peek(self) -> Entry | None:
        """The least living entry."""
        items, level = self.items, self.level
        while items:
            entry = items[0][2]
            if entry.state == WAITING and (level is None or entry.level == level):
                return entry
            heappop(items)
        return None

    def forget(self) -> None:
        """One entry died; sweep when the dead outnumber the living."""
        live = self.live = self.live - 1
        if len(self.items) > 2 * live + 32:
            self.items = list({item[1]: item for item in self.items if self._waits(item[2])}.values())
            heapify(self.items)

    def _waits(self, entry: Entry) -> bool:
        return entry.state == WAITING and (self.level is None or entry.level == self.level)

    def late(self) -> Entry | None:
        """An unprotected living entry near the end: a leaf of the heap. Looks at 64 leaves at most."""
        for _, _, entry in self.items[:-65:-1]:
            if self._waits(entry) and not entry.protected:
                return entry
        return None

    def check_integrity(self) -> None:
        living = {entry.seq for _, _, entry in self.items if self._waits(entry)}
        assert len(living) == self.live, f"{len(living)} living entries, counted {self.live}"
