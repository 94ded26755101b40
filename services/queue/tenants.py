"""What operators see of single tenants: a bounded number of them by name, the rest together as "other".

Rules: who has a name, no more; TenantCounts (stats.py) counts. Who came first has one, until somebody without has
much more that waits and runs. What the others did is the band's counts less those of the named, so that it only grows
when a name changes hands; whoever gets a name (again) begins at 0, which Prometheus takes for a restart.
"""

from __future__ import annotations

from collections.abc import Sequence

from .light import TenantSlots
from .stats import TenantCounts

MAX_NAMED = 32
OTHER = "other"
LOOK_EVERY_S = 1.0
"""Names change hands at most that often."""


class TenantBook:
    """The named by (tenant, index of band)."""

    def __init__(self, max_named: int = MAX_NAMED) -> None:
        self.named: dict[tuple[str, int], TenantCounts] = {}
        self._nameless = TenantCounts()
        self.max_named = max_named
        self._looked_s = float("-inf")
        self._last: tuple[str, int] | None = None

    def of(self, tenant: str, band: int) -> TenantCounts:
        """Where to count for this tenant."""
        row = self.named.get((tenant, band))
        if row is not None:
            return row
        if len(self.named) >= self.max_named:
            self._last = tenant, band
            return self._nameless
        row = self.named[tenant, band] = TenantCounts()
        return row

    def look(self, slots: Sequence[TenantSlots], now_s: float) -> None:
        """Give the tenant without a name that asked last that of the least busy one, if it is far heavier. Who floods
        asks most, and is the last one soon; to look at every tenant would cost a millisecond."""
        if self._last is None or now_s - self._looked_s < LOOK_EVERY_S:
            return
        self._looked_s = now_s
        lightest, key = min((_load(slots, key), key) for key in self.named)
        if self._last not in self.named and _load(slots, self._last) > 2 * lightest:
            del self.named[key]
            self.named[self._last] = TenantCounts()
        self._last = None


def _load(slots: Sequence[TenantSlots], key: tuple[str, int]) -> int:
    row = slots[key[1]].rows.get(key[0])
    return row.waiting + row.running if row is not None else 0
