"""A gateway's side of the journal: one link, and a call per answer that this gateway has a part in.

How the gateway uses it (gateway/journal_run.py); nothing here waits for the journal but `open` and `end`:

    call = await client.open(key, fingerprint, head, holder)    None: not journalled (away, full)
    call.state == "own"     make the answer: call.append(parts) …, then await call.end(tail)
    call.state == "follow"  holder gets parts, then the end, or becomes the owner
    call.release()          in any state: no part in it any more

When the link is down an owner goes on, and says again what it owns when it is back; a follower asks again.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import Protocol

from ..cache.key import CacheKey
from ..config import JournalConfig
from ..errors import RequestError
from ..link.asyncio_link import Link, Redial, Resolve
from ..link.journal_messages import (
    JournalAck,
    JournalAppend,
    JournalDone,
    JournalEnd,
    JournalFail,
    JournalHave,
    JournalOpen,
    JournalParts,
    JournalRelease,
    JournalState,
    JournalWatch,
    LanePart,
)
from ..link.messages import AnyMessage
from ..outcome import Reason

DEAD_AFTER_S = 0.6
RESUME_TIMEOUT_S = 2.0
"""A client that comes back is worth waiting for: without the journal there is nothing to tell it."""
COMES_BACK_S = 1.0
"""A journal whose link went down is waited for so long, as far as a request may wait at all."""
END_TIMEOUT_S = 60.0
"""The client has its answer by then; only the bill waits for a journal that is out of reach."""


class Holder(Protocol):
    """What a call tells. Called on the event loop, in order; must not block. Nothing after `journal_lost`."""

    def journal_parts(self, parts: tuple[LanePart, ...]) -> None:
        """Tokens of the answer that this gateway follows."""
        ...

    def journal_own(self, epoch: int) -> None:
        """Go on after the tokens that came: the answer is this gateway's now."""
        ...

    def journal_done(self, tail: bytes) -> None:
        """The answer that this gateway follows is complete."""
        ...

    def journal_ack(self, seq: int) -> None:
        """Everything up to that append is kept."""
        ...

    def journal_have(self, counts: tuple[int, ...]) -> None:
        """That many tokens of each choice are kept: send what is missing."""
        ...

    def journal_watch(self, followers: int) -> None:
        """So many calls of other gateways follow this owner."""
        ...

    def journal_away(self) -> None:
        """The link is down: nothing is kept until `journal_have`."""
        ...

    def journal_lost(self, state: str, error: RequestError | None) -> None:
        """The call is over: "fenced", "off", "gone" or "failed" (with the request's error)."""
        ...


class JournalCall:
    """One gateway's part in one answer. `state`: asking, own, follow or closed; `fresh`: nobody had it before."""

    __slots__ = (
        "_client", "_ended", "_first", "_tail", "call_id", "epoch", "fresh", "head", "holder", "opening",
        "seq", "state",
    )  # fmt: skip

    def __init__(self, client: JournalClient, opening: JournalOpen, holder: Holder) -> None:
        loop = asyncio.get_running_loop()
        self._client, self.opening, self.holder = client, opening, holder
        self.call_id = opening.call_id
        self.state = "asking"
        self.head = opening.head
        self.epoch = 0
        self.fresh = False
        self.seq = 0
        self._tail: bytes | None = None
        self._first: asyncio.Future[str] = loop.create_future()
        self._ended: asyncio.Future[bool] = loop.create_future()

    def append(self, parts: tuple[LanePart, ...]) -> int:
        """The owner's new tokens. Returns the number that `journal_ack` will tell."""
        self.seq += 1
        self._client.send(JournalAppend(self.call_id, self.seq, parts))
        return self.seq

    async def end(self, tail: bytes) -> bool:
        """The owner's answer is complete. False: another gateway owns it now, and bills it. True too when the journal
        stays away for END_TIMEOUT_S."""
        self._tail = tail
        self._client.send(JournalEnd(self.call_id, tail))
        try:
            async with asyncio.timeout(END_TIMEOUT_S):
                return await self._ended
        except TimeoutError:
            return True
        finally:
            self._client.forget(self)

    def fail(self, error: RequestError) -> None:
        """The request itself is at fault: nothing is kept."""
        if self.state != "closed":
            self._client.send(JournalFail(self.call_id, error.reason.value, error.message))
            self._client.forget(self)

    def release(self) -> None:
        """No part in it any more. Idempotent."""
        if self.state != "closed":
            self._client.send(JournalRelease(self.call_id))
            self._client.forget(self)

    # the client's side ---------------------------------------------------------------------------------

    async def first_state(self) -> str:
        return await self._first

    def told(self, message: JournalState) -> None:
        state, self.epoch = message.state, message.epoch or self.epoch
        first = not self._first.done()
        if state in ("follow", "own"):
            before, self.state = self.state, state
            self.head = message.head or self.head
            if first:
                self.fresh = state == "own"
                self._first.set_result(state)
            elif state == "own" and before == "follow":
                self.holder.journal_own(self.epoch)
            return
        owned, self.state = self.state == "own", "closed"
        self._client.forget(self)
        if not self._ended.done():
            self._ended.set_result(state != "fenced")
        if first:
            self._first.set_result(state)
        elif state != "ended" or not owned:
            self.holder.journal_lost(state, _error(message) if state == "failed" else None)

    def acked(self, ack: JournalAck) -> None:
        if ack.ended and not self._ended.done():
            self._ended.set_result(True)
        elif not ack.ended:
            self.holder.journal_ack(ack.seq)

    def have(self, counts: tuple[int, ...]) -> None:
        self.holder.journal_have(counts)
        if self._tail is not None:
            self._client.send(JournalEnd(self.call_id, self._tail))

    def again(self) -> JournalOpen:
        """What to say on a new link."""
        first = self.opening
        return JournalOpen(
            self.call_id, first.key, first.fingerprint, self.head, first.person,
            epoch=self.epoch if self.state == "own" else 0, follows=self.state == "follow",
        )  # fmt: skip


class JournalClient:
    """See the module. All methods on the gateway's event loop."""

    def __init__(self, config: JournalConfig, resolve: Resolve, name: str) -> None:
        self._config = config
        self._calls: dict[int, JournalCall] = {}
        self._ids = itertools.count(1)
        self._link: Link | None = None
        self._lost_s = float("-inf")
        self._redial = Redial(resolve, self, name, dead_after_s=DEAD_AFTER_S)

    def start(self) -> None:
        """Keep a link to the journal from now on."""
        self._redial.start()

    async def stop(self) -> None:
        await self._redial.stop()

    @property
    def linked(self) -> bool:
        """Does the journal answer?"""
        return self._link is not None

    async def open(
        self, key: CacheKey, fingerprint: bytes, head: bytes, holder: Holder, *, resume: bool = False
    ) -> JournalCall | None:
        """Ask whose answer this is. None: nobody keeps it (the journal is away or full). With `resume` only a known
        answer will do. Raises RequestError: IDEMPOTENCY_CONFLICT, RESUME_EXPIRED."""
        loop = asyncio.get_running_loop()
        if self._link is None and not resume and loop.time() - self._lost_s > COMES_BACK_S:
            return None
        call_id = next(self._ids)
        opening = JournalOpen(call_id, key.wire, fingerprint, head, key.person, resume)
        call = self._calls[call_id] = JournalCall(self, opening, holder)
        self.send(opening)
        try:
            async with asyncio.timeout(RESUME_TIMEOUT_S if resume else self._config.open_timeout_s):
                state = await call.first_state()
        except BaseException as error:
            call.release()
            if isinstance(error, TimeoutError):
                return None
            raise
        if state == "conflict":
            message = "this idempotency key was used for another request; take a new one"
            raise RequestError(Reason.IDEMPOTENCY_CONFLICT, message, param="idempotency-key")
        if state == "gone":
            message = "nothing is kept of this answer any more: ask again without last-event-id to begin anew"
            raise RequestError(Reason.RESUME_EXPIRED, message, param="last-event-id")
        return call if state in ("own", "follow") else None

    def send(self, message: object) -> None:
        if self._link is not None:
            self._link.send(message)

    def forget(self, call: JournalCall) -> None:
        call.state = "closed"
        self._calls.pop(call.call_id, None)

    # link.Handler --------------------------------------------------------------------------------------

    def link_up(self, link: Link) -> None:
        self._link = link
        for call in self._calls.values():
            link.send(call.opening if call.state == "asking" else call.again())

    def link_down(self, link: Link, why: str) -> None:
        self._link = None
        self._lost_s = asyncio.get_running_loop().time()
        for call in list(self._calls.values()):
            if call.state == "own":
                call.holder.journal_away()

    def link_message(self, link: Link, message: AnyMessage) -> None:
        call = self._calls.get(getattr(message, "call_id", 0))
        if call is None:
            return
        match message:
            case JournalParts(parts=parts):
                call.holder.journal_parts(parts)
            case JournalAck():
                call.acked(message)
            case JournalState():
                call.told(message)
            case JournalDone(tail=tail):
                self.forget(call)
                call.holder.journal_done(tail)
            case JournalHave(counts=counts):
                call.have(counts)
            case JournalWatch(followers=followers):
                call.holder.journal_watch(followers)
            case _:
                pass


def _error(message: JournalState) -> RequestError:
    try:
        return RequestError(Reason(message.reason), message.message)
    except ValueError:
        return RequestError(Reason.INTERNAL, message.message)
