"""Strict bands and ageing: which lane's turn it is.

Rules: orders lanes, not requests (ordering/ does); knows no engines and no reserves (pools.py).

Each band has two lanes: its own requests (`own`, which they never leave while they wait), and those of lower bands
that waited so long that they are treated as its own as well (`aged`). While both wait, the aged ones get one grant in
AGED_TURN: a flood of old batch work takes at most that part from a band, and still moves. Where a band has nothing of
its own, the next band's turn comes as usual, so ageing never reorders the requests of one band among themselves.

Bound (no starvation): a request of rank r reaches the top band after ageing_s(r) + … + ageing_s(1), and from there
waits for at most AGED_TURN grants per aged request before it.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..config import BandConfig
from .entry import WAITING, Entry
from .ordering import Ordering, make_ordering
from .wheel import TimerWheel

AGED_TURN = 4


class Band:
    """One band: its settings and its two lanes. `index` is its place by rank (0 first). `idle`: nothing of its own
    waits, as who asked last was told."""

    def __init__(self, index: int, config: BandConfig, ordering: str) -> None:
        self.index = index
        self.config = config
        self.own: Ordering = make_ordering(ordering, None)
        self.aged: Ordering = make_ordering(ordering, index)
        self.num_aged = 0
        self.idle = True
        self._turn = 0

    def head(self) -> Entry | None:
        """Who goes next of its own. Ask only a band that is not `idle`."""
        entry = self.own.peek()
        self.idle = entry is None
        return entry

    def next_aged(self) -> Entry | None:
        """The aged request whose turn it is before the band's own, if it is. Counts the turn; there are some."""
        self._turn += 1
        return self.aged.peek() if self._turn % AGED_TURN == 0 else None


class Bands:
    """All lanes by rank."""

    def __init__(self, configs: tuple[BandConfig, ...], ordering: str) -> None:
        ranked = sorted(configs, key=lambda config: config.rank)
        self.all = [Band(i, config, ordering) for i, config in enumerate(ranked)]
        self.index_of = {band.config.name: band.index for band in self.all}
        self._ageing: TimerWheel[Entry] = TimerWheel()
        self.waiting = 0
        self.configure([band.config for band in self.all])

    def configure(self, configs: list[BandConfig]) -> None:
        """New limits at run time, by rank."""
        for band, config in zip(self.all, configs, strict=True):
            band.config = config
        self.pausing = [band for band in self.all if band.config.pauses_lower]
        ageing_s = [config.ageing_s for config in configs]
        # From (level, band): how old an entry is that rises from there.
        self._rises_after_s = {
            (level, band): sum(ageing_s[level : band + 1])
            for band in range(len(configs))
            for level in range(1, band + 1)
        }

    def add(self, entry: Entry, returning: bool = False) -> None:
        """A request begins to wait, or waits on because it could not be placed (`returning`)."""
        entry.state = WAITING
        band, level = entry.band, entry.level
        lanes = self.all[band]
        lanes.own.add(entry, returning)
        lanes.idle = False
        if level != band:
            self._join_aged(entry, returning)
        self.waiting += 1
        if level > 0:
            entry.ageing_slot = self._ageing.add(entry.arrived_s + self._rises_after_s[level, band], entry)

    def _join_aged(self, entry: Entry, returning: bool = False) -> None:
        band = self.all[entry.level]
        band.aged.add(entry, returning)
        band.num_aged += 1

    def _leave_aged(self, entry: Entry, level: int) -> None:
        band = self.all[level]
        band.aged.discard(entry)
        band.num_aged -= 1

    def level_at(self, entry: Entry, now_s: float) -> int:
        """The level that a request of this age has (for those that arrive old)."""
        level, rises_s = entry.band, entry.arrived_s
        while level > 0:
            rises_s += self.all[level].config.ageing_s
            if rises_s > now_s:
                break
            level -= 1
        return level

    def age(self, now_s: float, budget: int) -> int:
        """Lift those whose time has come, at most `budget`; returns how many it looked at."""
        due = self._ageing.due(now_s, budget)
        for entry in due:
            if entry.state != WAITING:
                continue
            before = entry.level
            entry.level -= 1
            if before != entry.band:
                self._leave_aged(entry, before)
            self._join_aged(entry)
            if entry.level > 0:
                rises_s = entry.arrived_s + self._rises_after_s[entry.level, entry.band]
                entry.ageing_slot = self._ageing.add(rises_s, entry)
        return len(due)

    def leave(self, entry: Entry, state: int) -> None:
        """A waiting entry leaves its lanes and becomes `state`."""
        entry.state = state
        band, level = entry.band, entry.level
        self.all[band].own.discard(entry)
        if level != band:
            self._leave_aged(entry, level)
        self.waiting -= 1
        if level > 0:
            self._ageing.remove(entry.ageing_slot, entry)

    def lowest(self) -> Iterator[Band]:
        """Bands from the lowest up, for shedding."""
        return reversed(self.all)

    def check_integrity(self) -> None:
        for band in self.all:
            band.own.check_integrity()
            band.aged.check_integrity()
            assert len(band.aged) == band.num_aged
        assert sum(len(band.own) for band in self.all) == self.waiting
