"""Leases: numbering and expiry.

Rules: knows when a lease has run out, not what follows. A lease lives for `ttl_s` from its last renewal, and every
Progress that names it renews it. However often it is renewed, it ends `ttl_s` after the request's own deadline: a
gateway that leaks leases while it stays alive gets that far and no further. One whose link went down has less time.
"""

from __future__ import annotations

from .entry import LEASED, PREEMPTING, Entry
from .wheel import TimerWheel

LOST_S = 1.0
"""Gateways dial again after 0.02 s, and at least once a second."""


class LeaseBook:
    """Live leases. `first_id` sets one incarnation of the queue apart from the next."""

    def __init__(self, ttl_s: float, first_id: int) -> None:
        self.ttl_s = ttl_s
        self._last_id = first_id
        self._wheel: TimerWheel[Entry] = TimerWheel()

    def open(self, entry: Entry, now_s: float) -> None:
        """A new lease for `entry`."""
        entry.lease_id = self._last_id = self._last_id + 1
        entry.granted_s = entry.renewed_s = now_s
        entry.lease_slot = self._wheel.add(now_s + self.ttl_s, entry)

    def watch(self, entry: Entry, now_s: float) -> None:
        """Begin to wait for the expiry of a lease that a gateway told of, after our restart."""
        entry.renewed_s = now_s
        entry.lease_slot = self._wheel.add(now_s + self.ttl_s, entry)

    def hurry(self, entry: Entry, now_s: float) -> None:
        """The gateway's link went down: it has `LOST_S` to say that it goes on. Nobody else can say that it does not,
        and until then the slot is taken, for which those wait who lost that gateway."""
        until_s = now_s + LOST_S
        if min(entry.renewed_s, entry.deadline_s) + self.ttl_s > until_s:
            self.close(entry)
            entry.renewed_s = until_s - self.ttl_s
            entry.lease_slot = self._wheel.add(until_s, entry)

    def close(self, entry: Entry) -> None:
        self._wheel.remove(entry.lease_slot, entry)

    def expired(self, now_s: float, budget: int) -> tuple[int, list[Entry]]:
        """How many were looked at, and those that ran out, forgotten here; renewed ones are watched on."""
        over: list[Entry] = []
        due = self._wheel.due(now_s, budget)
        for entry in due:
            if entry.state not in (LEASED, PREEMPTING):
                continue
            ends_s = min(entry.renewed_s, entry.deadline_s) + self.ttl_s
            if ends_s <= now_s:
                over.append(entry)
            else:
                entry.lease_slot = self._wheel.add(ends_s, entry)
        return len(due), over
