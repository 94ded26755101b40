"""A heap of entries that forgets lazily: what FIFO, EDF and each tenant's own line are made of.

Rules: a data structure, no policy (it has no class `Policy`). Dead entries stay until they surface or outnumber the
living, then one sweep removes them: O(1) amortised.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush

from ..entry import WAITING, Entry


class EntryHeap:
    """Entries of lane `lane_id` by (key, seq). `live` counts those that still wait."""

    __slots__ = ("items", "lane_id", "live")

    def __init__(self, lane_id: int) -> None:
        self.lane_id = lane_id
        self.items: list[tuple[float, int, Entry]] = []
        self.live = 0

    def push(self, key: float, entry: Entry) -> None:
        heappush(self.items, (key, entry.seq, entry))
        self.live += 1

    def peek(self) -> Entry | None:
        """The least living entry."""
        items, lane_id = self.items, self.lane_id
        while items:
            entry = items[0][2]
            if entry.state == WAITING and entry.lane == lane_id:
                return entry
            heappop(items)
        return None

    def pop(self) -> None:
        """Remove the entry that `peek` returned."""
        heappop(self.items)
        self.live -= 1

    def forget(self) -> None:
        """One entry died; sweep when the dead outnumber the living."""
        self.live -= 1
        if len(self.items) > 2 * self.live + 32:
            lane_id = self.lane_id
            self.items = [i for i in self.items if i[2].state == WAITING and i[2].lane == lane_id]
            heapify(self.items)

    def late(self) -> Entry | None:
        """An unprotected living entry near the end: a leaf of the heap. Looks at 64 leaves at most."""
        for _, _, entry in self.items[:-65:-1]:
            if entry.state == WAITING and entry.lane == self.lane_id and not entry.protected:
                return entry
        return None

    def check_integrity(self) -> None:
        living = [e for _, _, e in self.items if e.state == WAITING and e.lane == self.lane_id]
        assert len({e.seq for e in living}) == len(living), "an entry waits twice"
        assert len(living) == self.live, f"{len(living)} living entries, counted {self.live}"
