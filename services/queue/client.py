"""A gateway's side of the queue: tickets out, leases in, over one link that may break at any time.

    client = QueueClient(resolve, "gateway-0", on_fence=mux.fence)
    client.start()
    client.acquire(Acquire(ticket=…, …), holder)   # holder.on_grant / on_refuse, later perhaps on_preempt
    client.progress(ticket, 1)                     # per frame; sent in batches every 100 ms
    client.release(Release(ticket, lease_id, …))   # ends it; after a preemption acquire again with a new ticket

Rules: a shell without Ray; no task and no timer per call. Callbacks come on the event loop, from the link's read
callback, and may call back into the client. Each ticket gets exactly one of on_grant and on_refuse, unless it is
cancelled first; whatever the link does:
- while it is down, new tickets wait here until their deadline;
- when it is back, leases in use are told first (Holding), then all that waits is registered again with its true age;
- a grant that comes twice is given to the holder once; one that nobody waits for goes straight back;
- while the queue is known to be dead, a lease that comes back passes to another that waits here (hand_on.py).
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from itertools import islice

from ..clock import Clock, SystemClock
from ..link.asyncio_link import Link, Redial, Resolve
from ..link.messages import (
    Acquire,
    AnyMessage,
    CancelTicket,
    Fence,
    Grant,
    Holding,
    Preempt,
    Progress,
    QueueLimits,
    Refuse,
    Release,
    Revisions,
)
from ..outcome import Outcome, Reason
from .hand_on import LOOK_AT, HandOn
from .rollout.weights import Table, choose
from .ticket import Holder, Ticket

PROGRESS_EVERY_S = 0.1
RENEW_EVERY_S = 1.0
"""Every held lease is named at least this often, with or without tokens: that renews it."""
RESEND_CHUNK = 1000
MAX_OWED = 10_000


class QueueClient:
    """See the module. `on_fence(engine_id, epoch)`: every stream on that engine up to that epoch is lost.

    `name` becomes unique per process start, since tickets begin anew with each.
    """

    def __init__(
        self,
        resolve: Resolve,
        name: str,
        *,
        on_fence: Callable[[str, int], None],
        clock: Clock | None = None,
    ) -> None:
        self.name = f"{name}.{secrets.token_hex(4)}"
        self._clock = clock or SystemClock()
        self._on_fence = on_fence
        self._redial = Redial(resolve, self, self.name, on_refused=self.queue_died)
        self._hand_on, self._handing_on = HandOn(), False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._link: Link | None = None
        self._tickets: dict[int, Ticket] = {}
        self._moved: dict[int, Ticket] = {}
        self._owed: list[Release] = []
        self._revisions: dict[str, Revisions] = {}
        self._limits: QueueLimits | None = None
        self.on_revisions: Callable[[Revisions], None] = lambda _: None
        self._timer: asyncio.TimerHandle | None = None
        self._renewed_s = 0.0
        self.reconnects = -1

    def start(self) -> None:
        """Connect, and keep connected. Call on the event loop."""
        self._redial.start()
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(PROGRESS_EVERY_S, self._tick)

    async def stop(self) -> None:
        """Cut the link; nobody is called any more."""
        if self._timer is not None:
            self._timer.cancel()
        self._tickets.clear()
        self._moved.clear()
        self._hand_on.queue_answers()
        await self._redial.stop()

    @property
    def connected(self) -> bool:
        return self._link is not None

    @property
    def num_waiting(self) -> int:
        return sum(1 for ticket in self._tickets.values() if ticket.grant is None)

    @property
    def num_held(self) -> int:
        return sum(1 for ticket in self._tickets.values() if ticket.grant is not None)

    def revision_of(self, model: str, session: str) -> str:
        """The revision of the model that this session gets; "" before the queue said what there is."""
        told = self._revisions.get(model)
        return choose(Table(told.shares, told.salt), session) if told is not None else ""

    def revisions(self, model: str) -> frozenset[str] | None:
        """Those that there are, with sessions or without; None before the queue said so."""
        told = self._revisions.get(model)
        return frozenset(name for name, _ in told.shares) if told is not None else None

    # what the pipeline calls ---------------------------------------------------------------------------

    def acquire(self, acquire: Acquire, holder: Holder) -> None:
        """Ask for a lease. `acquire.ticket` is new in this process; `age_s` and `remaining_s` are true now."""
        ticket = self._tickets[acquire.ticket] = Ticket(acquire, holder, self._clock.now_s())
        if self._link is not None:
            ticket.sent_on = self._link
            self._link.send(acquire)
        elif self._hand_on.spares:
            self._hand_on_soon()

    def cancel(self, ticket: int) -> None:
        """Nobody wants the ticket any more, granted or not. Unknown tickets are ignored."""
        if self._tickets.pop(ticket, None) is not None:
            self._moved.pop(ticket, None)
            if self._link is not None:
                self._link.send(CancelTicket(ticket))

    def release(self, release: Release) -> None:
        """Give a lease back; `release.output_tokens` are those of this lease, reported by `progress` or not."""
        ticket = self._tickets.pop(release.ticket, None)
        self._moved.pop(release.ticket, None)
        if self._link is not None:
            self._link.send(release)
            return
        if len(self._owed) < MAX_OWED:
            self._owed.append(release)
        if ticket is not None and ticket.grant is not None and self._hand_on.open(self._clock.now_s()):
            self._hand_on.returned(ticket.grant, ticket.acquire, release.outcome)
            self._hand_on_soon()

    def progress(self, ticket: int, num_tokens: int) -> None:
        """Tokens arrived for a held lease. Cheap: call it per frame."""
        held = self._tickets.get(ticket)
        if held is not None:
            held.pending_tokens += num_tokens
            self._moved[ticket] = held

    # the link ------------------------------------------------------------------------------------------

    def link_up(self, link: Link) -> None:
        self._link = link
        self._hand_on.queue_answers()
        self.reconnects += 1
        if self._limits is not None:
            link.send(self._limits)
        for revisions in self._revisions.values():  # before anything else, or it tells us what it believes
            link.send(revisions)
        link.send(Progress((), ()))  # the queue hears who we are, and says what there is
        for release in self._owed:  # of a queue that has died since: it ignores what it does not know
            link.send(release)
        self._owed.clear()
        now_s = self._clock.now_s()
        for number, ticket in self._tickets.items():
            if ticket.grant is not None:
                grant = ticket.grant
                self._moved.pop(number, None)
                ticket.output_tokens += ticket.pending_tokens
                ticket.pending_tokens = 0
                told = ticket.aged(now_s, registered=True)
                lease = grant.lease_id, grant.engine_id, grant.epoch
                link.send(Holding(told, *lease, ticket.output_tokens, grant.revision))
                ticket.sent_on = link
        self._register_again(link, [t for t in self._tickets.values() if t.grant is None])

    def _register_again(self, link: Link, rest: list[Ticket]) -> None:
        """In pieces, so that 100,000 waiting tickets do not stop the event loop."""
        if link is not self._link:
            return
        now_s = self._clock.now_s()
        for ticket in rest[-RESEND_CHUNK:]:
            current = self._tickets.get(ticket.acquire.ticket) is ticket
            if current and ticket.grant is None and ticket.sent_on is not link:
                link.send(ticket.aged(now_s, registered=ticket.sent_on is not None))
                ticket.sent_on = link
        del rest[-RESEND_CHUNK:]
        if rest:
            asyncio.get_running_loop().call_soon(self._register_again, link, rest)

    def link_down(self, link: Link, why: str) -> None:
        if self._link is link:
            self._link = None

    def link_message(self, link: Link, message: AnyMessage) -> None:
        if isinstance(message, Grant):
            self._granted(link, message)
        elif isinstance(message, Refuse):
            ticket = self._tickets.get(message.ticket)
            if ticket is not None and ticket.grant is None:
                del self._tickets[message.ticket]
                ticket.holder.on_refuse(message)
        elif isinstance(message, Preempt):
            ticket = self._tickets.get(message.ticket)
            if ticket is not None and ticket.grant is not None and ticket.grant.lease_id == message.lease_id:
                ticket.holder.on_preempt(message.lease_id)
        elif isinstance(message, Fence):
            self._on_fence(message.engine_id, message.epoch)
        elif isinstance(message, Revisions):
            self._revisions[message.model] = message
            if not message.shares:  # it is forgotten
                del self._revisions[message.model]
            self.on_revisions(message)
        elif isinstance(message, QueueLimits):
            newer = self._limits is None or message.version > self._limits.version
            self._limits = message if newer else self._limits

    def _granted(self, link: Link, grant: Grant) -> None:
        ticket = self._tickets.get(grant.ticket)
        if ticket is not None and ticket.grant is None:
            ticket.grant = grant
            ticket.holder.on_grant(grant)
        elif ticket is None or ticket.grant is None or ticket.grant.lease_id != grant.lease_id:
            link.send(Release(grant.ticket, grant.lease_id, 0, 0, Outcome.CANCELLED))

    # without a queue -----------------------------------------------------------------------------------

    def queue_died(self) -> None:
        """Where the queue was, nobody listens any more: it grants nothing, and the next one asks before it does."""
        if self._link is None:
            self._hand_on.queue_died(self._clock.now_s())

    def _hand_on_soon(self) -> None:
        if self._loop is not None and not self._handing_on:
            self._handing_on = (
                True  # after the turn: whoever asks or returns is in the middle of its own step
            )
            self._loop.call_soon(self._hand_on_now)

    def _hand_on_now(self) -> None:
        self._handing_on = False
        now_s = self._clock.now_s()
        if self._link is not None or not self._hand_on.open(now_s):
            return
        waiting = islice((ticket for ticket in self._tickets.values() if ticket.grant is None), LOOK_AT)
        wishes = [ticket.aged(now_s, registered=False) for ticket in waiting]
        for wish, grant in self._hand_on.match(wishes, now_s):
            if (ticket := self._tickets.get(wish.ticket)) is not None:  # one's end takes its siblings along
                self._give(ticket, grant)

    def _give(self, ticket: Ticket, grant: Grant) -> None:
        ticket.grant = grant
        ticket.holder.on_grant(grant)

    # time ----------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(PROGRESS_EVERY_S, self._tick)
        now_s = self._clock.now_s()
        renew = now_s - self._renewed_s >= RENEW_EVERY_S
        if renew:
            self._renewed_s = now_s
        if self._link is None:
            if renew:
                self._give_up_late(now_s)
            return
        told = self._moved
        if renew:
            told = {number: ticket for number, ticket in self._tickets.items() if ticket.grant is not None}
        if told:
            counts = []
            for ticket in told.values():
                counts.append(ticket.pending_tokens)
                ticket.output_tokens += ticket.pending_tokens
                ticket.pending_tokens = 0
            self._link.send(Progress(tuple(told), tuple(counts)))
            self._moved = {}

    def _give_up_late(self, now_s: float) -> None:
        """Without a queue somebody must still keep the deadlines of what waits."""
        for number, ticket in list(self._tickets.items()):
            if number not in self._tickets:
                continue  # one choice's end takes its siblings along
            if ticket.grant is None and now_s - ticket.asked_s >= ticket.acquire.remaining_s:
                del self._tickets[number]
                text = "the deadline passed while the queue was out of reach"
                ticket.holder.on_refuse(Refuse(number, Reason.DEADLINE_EXCEEDED, text))
