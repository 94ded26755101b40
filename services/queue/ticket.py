"""A gateway's ticket at the queue: a wish for a lease, who wants it, and the lease once it came.

Rules: a record that the client (client.py) reads and changes; it decides nothing.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from ..link.asyncio_link import Link
from ..link.messages import Acquire, Grant, Refuse


class Holder(Protocol):
    """Who wants a lease. Called on the event loop; must not block and must not raise."""

    def on_grant(self, grant: Grant) -> None: ...
    def on_refuse(self, refuse: Refuse) -> None: ...
    def on_preempt(self, lease_id: int) -> None: ...


class Ticket:
    """One ticket. `asked_s` is when `acquire` was true, so that ages can be brought up to date."""

    __slots__ = ("acquire", "asked_s", "grant", "holder", "output_tokens", "pending_tokens", "sent_on")

    def __init__(self, acquire: Acquire, holder: Holder, asked_s: float) -> None:
        self.acquire, self.holder, self.asked_s = acquire, holder, asked_s
        self.grant: Grant | None = None
        self.output_tokens = 0
        self.pending_tokens = 0
        self.sent_on: Link | None = None

    def aged(self, now_s: float, registered: bool) -> Acquire:
        """The same wish, with the age and the remainder it has now."""
        passed_s = now_s - self.asked_s
        a = self.acquire
        return msgspec.structs.replace(
            a,
            age_s=a.age_s + passed_s,
            remaining_s=a.remaining_s - passed_s,
            registered=a.registered or registered,
        )
