"""Strict bands and ageing: which lane's turn it is.

Rules: orders lanes, not requests (ordering/ does); knows no engines and no reserves (pools.py).

Each band has two lanes: its own requests, and those of lower bands that waited so long that they are treated as its
own. Apart, because reserved capacity belongs to a band's own requests only. Where both wait, the aged ones get one
grant in `AGED_TURN`, so that a flood of old batch work takes at most that part from a band, and still moves.

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
    """One band: its settings and its two lanes. `index` is its place by rank (0 first)."""

    def __init__(self, index: int, config: BandConfig, ordering: str) -> None:
        self.index = index
        self.config = config
        self.own: Ordering = make_ordering(ordering, 2 * index)
        self.aged: Ordering = make_ordering(ordering, 2 * index + 1)
        self.turn = 0

    def heads(self) -> tuple[Entry | None, Entry | None]:
        """Who goes next here, and who instead if that one cannot."""
        own, aged = self.own.peek(), self.aged.peek()
        if own is None:
            return aged, None
        if aged is None:
            return own, None
        return (aged, own) if self.turn % AGED_TURN == AGED_TURN - 1 else (own, aged)


class Bands:
    """All lanes by rank."""

    def __init__(self, configs: tuple[BandConfig, ...], ordering: str) -> None:
        ranked = sorted(configs, key=lambda config: config.rank)
        self.all = [Band(i, config, ordering) for i, config in enumerate(ranked)]
        self.index_of = {band.config.name: band.index for band in self.all}
        self._lanes = [lane for band in self.all for lane in (band.own, band.aged)]
        self._ageing: TimerWheel[Entry] = TimerWheel()
        self.waiting = 0

    def add(self, entry: Entry) -> None:
        """A request begins to wait, in its own band, or further up if it is old already."""
        entry.state = WAITING
        self._lanes[2 * entry.level + (entry.level != entry.band)].add(entry)
        self.waiting += 1
        self._watch(entry)

    def _watch(self, entry: Entry) -> None:
        if entry.level > 0:
            entry.ageing_slot = self._ageing.add(self._rises_s(entry), entry)

    def _rises_s(self, entry: Entry) -> float:
        """When the entry rises from its present level."""
        waited = sum(band.config.ageing_s for band in self.all[entry.level : entry.band + 1])
        return entry.arrived_s + waited

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
            before = self._lanes[entry.lane]
            entry.level -= 1
            entry.lane = -1
            before.discard(entry)
            self._lanes[2 * entry.level + 1].add(entry)
            self._watch(entry)
        return len(due)

    def take(self, entry: Entry) -> None:
        """The entry that `heads` named leaves its lane for a grant."""
        self._lanes[entry.lane].take(entry)
        self.waiting -= 1
        if entry.level > 0:
            self._ageing.remove(entry.ageing_slot, entry)

    def put_back(self, entry: Entry) -> None:
        """A taken entry could not be placed in this decision."""
        entry.state = WAITING
        self._lanes[entry.lane].add(entry, returning=True)
        self.waiting += 1
        self._watch(entry)

    def discard(self, entry: Entry) -> None:
        """A waiting entry left otherwise; its state was changed before the call."""
        self._lanes[entry.lane].discard(entry)
        self.waiting -= 1
        if entry.level > 0:
            self._ageing.remove(entry.ageing_slot, entry)

    def charge(self, entry: Entry, cost: float) -> None:
        """Service goes on the bill of the tenant in its own band, and in the lane where it was granted."""
        self.all[entry.band].own.charge(entry.tenant, cost)
        if entry.level != entry.band:
            self.all[entry.level].aged.charge(entry.tenant, cost)

    def lowest(self) -> Iterator[Band]:
        """Bands from the lowest up, for shedding."""
        return reversed(self.all)

    def check_integrity(self) -> None:
        for lane in self._lanes:
            lane.check_integrity()
        assert sum(len(lane) for lane in self._lanes) == self.waiting
