"""Reserved capacity: who may take a free slot, who borrows, and who gives back.

Rules: counts of slots per band; it orders nobody (bands.py) and places nothing (routing/).

With C slots, reserve R_b per band and U = C − ΣR_b unreserved: what band b uses beyond R_b counts against U; what all
bands together use beyond U is borrowed. Work that cannot be preempted never borrows, so that every loan can be
called back. Invariant ("reserve never broken"): after a decision no request of a band that uses less than its
reserve waits while another band holds borrowed slots that suit it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from ..config import BandConfig
from .entry import LEASED, Entry


class Pools:
    """Slots by band. `used` excludes preempted leases that are on their way out."""

    def __init__(self, configs: list[BandConfig]) -> None:
        self._configs = configs
        self.capacity = 0
        self.reserve = [0] * len(configs)
        self.used = [0] * len(configs)
        self.reserving: list[int] = []
        """Bands with a reserve."""
        self.own_slots = [0] * len(configs)
        """Slots of engines that are a band's own pool."""
        self.unreserved = 0
        self._over = 0
        # Victims: the end of each list is the most recent grant. Work that was preempted before, be it before its first
        # token, stands apart and is taken last, so that nobody is paused for ever.
        self._fresh: list[list[Entry]] = [[] for _ in configs]
        self._resumed: list[list[Entry]] = [[] for _ in configs]
        self._recent: list[list[Entry]] = [[] for _ in configs]

    def configure(self, configs: list[BandConfig]) -> None:
        """New limits at run time; `resize` follows."""
        self._configs = configs

    def resize(self, shared_slots: int, pool_slots: list[int]) -> None:
        """Capacity changed: slots of shared engines, and per band those of engines that are its own pool.

        A share is rounded up but never takes the last unreserved slot of shared engines; absolute reservations may.
        """
        left = shared_slots
        for b, config in enumerate(self._configs):
            absolute = min(left, config.reserved_slots)
            left -= absolute
            share = min(max(0, left - 1), math.ceil(config.reserved_share * shared_slots - 1e-9))
            left -= share
            self.reserve[b] = pool_slots[b] + absolute + share
        self.reserving = [b for b, slots in enumerate(self.reserve) if slots]
        self.own_slots, self.capacity = pool_slots, shared_slots + sum(pool_slots)
        self.unreserved = left
        self._over = sum(
            max(0, used - reserve) for used, reserve in zip(self.used, self.reserve, strict=True)
        )

    @property
    def borrowed(self) -> int:
        """Slots in use that are reserved for a band other than the user's."""
        return max(0, self._over - self.unreserved)

    def below_reserve(self, band: int) -> bool:
        return self.used[band] < self.reserve[band]

    def may_take(self, band: int, preemptible: bool) -> bool:
        """Whether a free slot may go to this band: as a loan, its own, or an unreserved one."""
        return preemptible or self.used[band] < self.reserve[band] or self._over < self.unreserved

    def take(self, entry: Entry) -> None:
        """A lease begins."""
        band, used = entry.band, self.used
        in_use = used[band]
        if in_use >= self.reserve[band]:
            self._over += 1
        in_use = used[band] = in_use + 1
        if entry.preemptible:
            recent = self._recent[band]
            recent.append(entry)
            (self._resumed if entry.protected else self._fresh)[band].append(entry)
            if len(recent) > 2 * in_use + 64:
                for stack in (recent, self._fresh[band], self._resumed[band]):
                    stack[:] = [e for e in stack if e.state == LEASED]

    def give(self, entry: Entry) -> None:
        """A lease ended, or was called back."""
        band, used = entry.band, self.used
        in_use = used[band] = used[band] - 1
        if in_use >= self.reserve[band]:
            self._over -= 1

    def may_call_back(self, band: int) -> bool:
        """Whether this band's requests may pause others now: below its reserve, or as a band that pauses lower
        ones while one of those uses more than its own reserve."""
        if self.used[band] < self.reserve[band]:
            return True
        if not self._configs[band].pauses_lower:
            return False
        for lower in range(band + 1, len(self.used)):  # noqa: SIM110 - any() over a generator takes twice as long
            if self.used[lower] > self.reserve[lower]:
                return True
        return False

    def victims(self, band: int) -> Iterator[Entry]:
        """Leases that may be called back for `band`, best first: lowest band, not resumed before, newest grant.

        Beyond the reserve, work that aged up to this band's level is spared: it had waited its turn. Mostly the first
        will do, hence one by one; who calls one back asks no further.
        """
        below = self.used[band] < self.reserve[band]
        loans_only = below and self.borrowed > 0
        for other in range(len(self.used) - 1, -1, -1):
            if other == band or self.used[other] <= self.reserve[other] or (other < band and not loans_only):
                continue
            spare = self.used[other] - self.reserve[other]
            for stack in (self._fresh[other], self._resumed[other]):
                while stack and stack[-1].state != LEASED:
                    stack.pop()
                for entry in reversed(stack):
                    if entry.state == LEASED and spare > 0 and (below or entry.level > band):
                        spare -= 1
                        yield entry

    def recent(self, band: int) -> list[Entry]:
        """Preemptible leases of a band in the order of their grants, some long gone."""
        return self._recent[band]

    def check_integrity(self) -> None:
        over = sum(max(0, used - reserve) for used, reserve in zip(self.used, self.reserve, strict=True))
        assert over == self._over, f"over {over}, counted {self._over}"
        assert all(used >= 0 for used in self.used)
        assert sum(self.reserve) + self.unreserved == self.capacity
