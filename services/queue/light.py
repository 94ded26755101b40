"""Tenants without backlog, protected from one that takes all it can get.

Rules: slots per tenant of one band, and who may go before whom because of them; dispatch.py asks.

Token counters (fairness.py) make a flood of one tenant fair over time and give no credit for idleness, so that each
request of the others waits for a slot to fall free, and a burst of three for three slots. Here a *light* tenant (at
most LIGHT_WAITING of its requests wait) goes first, and may pause the newest work of a tenant with backlog, as long
as it holds at least two slots per weight fewer (max-min fairness in slots) and is not ahead in the token account by
more than `credit`: its share of the band's slots, worth a mean request each. That credit is added to the bound on the
service gap. Two tenants with backlog never pause each other: no thrashing.
"""

from __future__ import annotations

from itertools import islice

from .ages import Ages
from .entry import LEASED, Entry
from .ordering import Ordering

LIGHT_WAITING = 8
SCAN = 8
MAX_LIGHT = 4
MIN_HELD = 3
"""Slots from which a tenant with backlog may lose one to a light tenant."""
MAX_VICTIMS = 4


class TenantShare:
    """What one tenant has in one band right now. `held` are its preemptible leases, newest last, some long gone;
    while it waits, it has done so without a break since `since_s`."""

    __slots__ = ("held", "running", "since_s", "waiting", "waiting_tokens", "weight")

    def __init__(self) -> None:
        self.running = 0
        self.waiting = 0
        self.waiting_tokens = 0
        self.since_s = 0.0
        self.weight = 1.0
        self.held: list[Entry] = []


class TenantSlots:
    """The shares of one band's tenants. `light`: those that wait without backlog, in order of arrival; `heavy`: those
    with backlog that hold MIN_HELD slots or more. Without both nobody pauses anybody, which is known at once."""

    def __init__(self) -> None:
        self.rows: dict[str, TenantShare] = {}
        self.light: dict[str, None] = {}
        self.heavy: set[str] = set()
        self.total_running = 0
        self.ages = Ages()

    def wait(self, entry: Entry) -> None:
        """A request of the tenant begins to wait."""
        tenant, arrived_s = entry.tenant, entry.arrived_s
        row = self.rows.get(tenant) or self._new_row(tenant)
        row.weight = entry.weight
        row.waiting_tokens += entry.wanted_tokens
        self.ages.add(arrived_s)
        waiting = row.waiting = row.waiting + 1
        if waiting == 1 or arrived_s < row.since_s:
            row.since_s = arrived_s
        if waiting <= LIGHT_WAITING:
            self.light[tenant] = None
        elif waiting == LIGHT_WAITING + 1:
            del self.light[tenant]
            if row.running >= MIN_HELD:
                self.heavy.add(tenant)

    def leave(self, entry: Entry) -> None:
        """A request of the tenant waits no more."""
        tenant = entry.tenant
        row = self.rows[tenant]
        row.weight = entry.weight
        row.waiting_tokens -= entry.wanted_tokens
        self.ages.remove(entry.arrived_s)
        waiting = row.waiting = row.waiting - 1
        if waiting == LIGHT_WAITING:
            self.light[tenant] = None
            self.heavy.discard(tenant)
        elif not waiting:
            del self.light[tenant]
            if not row.running:
                del self.rows[tenant]

    def take(self, entry: Entry) -> None:
        """A lease begins."""
        row = self.rows.get(entry.tenant) or self._new_row(entry.tenant)
        row.weight = entry.weight
        running = row.running = row.running + 1
        self.total_running += 1
        if running >= MIN_HELD and row.waiting > LIGHT_WAITING:
            self.heavy.add(entry.tenant)
        if entry.preemptible:
            held = row.held
            held.append(entry)
            if len(held) > 2 * running + 16:
                row.held = [e for e in held if e.state == LEASED]

    def give(self, entry: Entry) -> None:
        """A lease ended, or was called back."""
        row = self.rows[entry.tenant]
        row.weight = entry.weight
        running = row.running = row.running - 1
        self.total_running -= 1
        if running < MIN_HELD:
            self.heavy.discard(entry.tenant)
            if not running and not row.waiting:
                del self.rows[entry.tenant]

    def _new_row(self, tenant: str) -> TenantShare:
        row = self.rows[tenant] = TenantShare()
        return row

    def check_integrity(self) -> None:
        """Raise AssertionError when `light` or `heavy` disagree with the shares. O(tenants)."""
        backlog = {name for name, row in self.rows.items() if row.waiting > LIGHT_WAITING}
        assert self.light.keys() == {name for name, row in self.rows.items() if row.waiting} - backlog
        assert self.heavy == {name for name in backlog if self.rows[name].running >= MIN_HELD}

    def first(self, lane: Ordering, head: Entry, mean_cost: float) -> Entry | None:
        """Who goes before `head`, which has backlog, for a free slot, if anybody does."""
        ahead = self.rows[head.tenant]
        return self._least(lane, head.tenant, (ahead.running + 1) / ahead.weight, self._levels(), mean_cost)

    def _levels(self) -> dict[str, float]:
        """What the first light tenants would hold per weight with one slot more."""
        rows, levels = self.rows, dict[str, float]()
        for tenant in islice(self.light, MAX_LIGHT):
            row = rows[tenant]
            levels[tenant] = (row.running + 1) / row.weight
        return levels

    def _least(
        self, lane: Ordering, other: str, level: float, levels: dict[str, float], mean_cost: float
    ) -> Entry | None:
        """The first of these light tenants' requests that may go before tenant `other`, which has backlog and holds
        `level` per weight."""
        if min(levels.values(), default=level) >= level:
            return None
        most = lane.counter_of(other) + mean_cost * self.total_running / len(self.rows)
        for tenant, would_hold in levels.items():
            if would_hold < level and lane.counter_of(tenant) <= most:
                entry = lane.head_of(tenant)
                if entry is not None:
                    return entry
        return None

    def swap(self, lane: Ordering, recent: list[Entry], mean_cost: float) -> tuple[Entry, list[Entry]] | None:
        """Who may pause whom: a light tenant's request and the newest leases of a tenant with backlog that holds
        more, found among the SCAN most recent grants (who floods is granted most)."""
        if not self.heavy:
            return None
        levels = self._levels()
        lately = {held.tenant: None for held in recent[: -SCAN - 1 : -1]}
        for tenant in filter(self.heavy.__contains__, lately):
            row = self.rows[tenant]
            entry = self._least(lane, tenant, (row.running - 1) / row.weight, levels, mean_cost)
            if entry is None:
                continue
            row.held = [e for e in row.held if e.state == LEASED]
            if row.held:
                return entry, row.held[: -MAX_VICTIMS - 1 : -1]
        return None
