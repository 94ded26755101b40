"""A gateway's side of the response cache: answers and flights in this process, one link to the Cache.

How the pipeline uses it, or `begin` instead of `lookup` (nothing raises; a slow cache costs `store_timeout_s` at most):

    if (answer := client.lookup_local(key)) is not None: replay it          a µs or two, no await
    match await client.lookup(key, rank=band_rank):
        case Hit(answer, ttl_s):     replay it (x-cache: hit)
        case Leading(seat):          generate; seat.feed(part) per engine frame; at the end
                                     seat.store(answer, ttl_s), seat.abandon() or seat.fail(error)
        case Following(seat):        seat.attach(follower): somebody else generates the same answer

A leader must end with `store`, `fail` or `abandon`, a follower with `leave`; all are idempotent.
In-process answers are served only while the link to the Cache is up: a purge that this gateway could not hear of must
not find an answer here (a partition is noticed within DEAD_AFTER_S + 0.2 s; a purge is promised within 1 s).
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

import msgspec

from ..clock import Clock, SystemClock
from ..config import CacheConfig
from ..errors import MeshError
from ..link.asyncio_link import Link, Redial, Resolve
from ..link.cache_messages import CacheHeld, CacheLook
from ..link.messages import (
    AnyMessage,
    CacheAnswer,
    CacheFeed,
    CacheGet,
    CacheHello,
    CacheLeave,
    CachePurge,
    CachePut,
    CacheWant,
    FeedPart,
)
from ..link.semantic_messages import SemanticFound
from .calls import PATIENCE, PAUSE_S, SILENT_S, Call, ClientStats, error_of
from .gateway_flights import GatewayFlights, SharedFlight
from .key import CacheKey
from .local_tier import LocalTier
from .policy import may_keep
from .seat import REMOTE, Asking, Following, Hit, Leading, LookedUp, Seat, into
from .semantic_client import SemanticClient
from .value import BadValue, CachedAnswer, decode, encode

DEAD_AFTER_S = 0.6


class CacheClient:
    """See the module. All methods on the gateway's event loop."""

    def __init__(self, config: CacheConfig, resolve: Resolve, name: str, clock: Clock | None = None) -> None:
        self._config = config
        self._clock = clock or SystemClock()
        self._local, self._flights = LocalTier(config.local_bytes), GatewayFlights()
        self.vectors = self._local.vectors
        self.semantic = SemanticClient(lambda answer: self._local.count(answer, "semantic"))
        self._calls: dict[int, Call] = {}
        self._by_wire: dict[bytes, Call] = {}
        self._ids = itertools.count(1)
        self._in_vain, self._heard_s, self._asks_again_s = 0, 0.0, 0.0
        self._link: Link | None = None
        self._redial = Redial(resolve, self, name, dead_after_s=DEAD_AFTER_S)

    def start(self) -> None:
        """Keep a link to the Cache."""
        self._redial.start()

    async def stop(self) -> None:
        """Drop the link; everybody under way goes on alone."""
        await self._redial.stop()

    @property
    def linked(self) -> bool:
        """Does the Cache answer?"""
        return self._link is not None

    def stats(self) -> ClientStats:
        """Counters and sizes now."""
        counts = self._local.counts() | self._flights.counts() | self.semantic.counts()
        return msgspec.convert({"linked": self.linked, **counts}, ClientStats)

    def lookup_local(self, key: CacheKey) -> CachedAnswer | None:
        """An answer in this process, or None."""
        return None if self._link is None else self._local.get(key, self._clock.now_s())

    async def lookup(self, key: CacheKey, *, rank: int = 0, refresh: bool = False) -> LookedUp:
        """Ask the Cache, and join or open the key's flight. Ends within `store_timeout_s` (2 ms): who gets no answer
        leads. `rank` is the band's; `refresh` asks to generate anew (Cache-Control: no-cache)."""
        answer: asyncio.Future[LookedUp] = asyncio.get_running_loop().create_future()
        asked = self.begin(key, into(answer), rank=rank, refresh=refresh)
        if not isinstance(asked, Asking):
            return asked
        try:
            return await answer
        except asyncio.CancelledError:
            asked.seat.leave()
            raise

    def begin(
        self, key: CacheKey, told: Callable[[LookedUp], None], *, rank: int = 0, refresh: bool = False
    ) -> Leading | Following | Asking:
        """As `lookup`, waiting for nothing: of an Asking, `told` is called once with what it comes to, within
        `store_timeout_s`, unless the seat leaves before."""
        seat = Seat(self, key)
        if refresh and self._flights.get(key.wire) is not None:
            seat.alone = True
            return self._flights.lead(seat)
        shared = self._flights.join(seat, self._clock.now_s(), rank)
        if shared is not None:
            return shared
        if self._link is None or asyncio.get_running_loop().time() < self._asks_again_s:
            return self._flights.lead(seat, bypass=True)
        call = Call(next(self._ids), key, seat)
        self._calls[call.call_id] = self._by_wire[key.wire] = call
        self._link.send(CacheGet(call.call_id, key.wire, True, key.person, rank, refresh))
        call.wait(self._config.store_timeout_s, self._clock, self._too_late)
        seat.told = told
        return Asking(seat)

    # what seats do (SeatOwner) -------------------------------------------------------------------------

    def publish(self, seat: Seat, parts: tuple[FeedPart, ...]) -> None:
        self._flights.feed(seat, parts)
        if (call := self._by_wire.get(seat.key.wire)) is not None and call.wanted:
            self._send(CacheFeed(call.call_id, parts))

    def finish(self, seat: Seat, answer: CachedAnswer, ttl_s: float) -> bool:
        if (flight := self._flights.finish(seat.key.wire, seat)) is None:
            return False
        keep = False
        if (call := self._by_wire.get(seat.key.wire)) is not None:
            value = b""
            if ttl_s > 0 and call.state == "leading" and not flight.tainted:
                value = encode(answer, compress_over_bytes=self._config.compress_over_bytes)
                keep = may_keep(self._config, len(value))
            if keep:
                self._local.put(call.key, answer, len(value), ttl_s, self._clock.now_s())
            self._send(CachePut(call.key.wire, value if keep else b"", ttl_s if keep else 0.0, call.call_id))
            self._drop(call)
        self._flights.end(flight, answer)
        return keep

    def fail(self, seat: Seat, error: MeshError) -> None:
        if (flight := self._flights.finish(seat.key.wire, seat)) is None:
            return
        if (call := self._by_wire.get(seat.key.wire)) is not None:
            self._send(CacheLeave(call.call_id, error.reason.value, error.message))
            self._drop(call)
        self._flights.fail(flight, error)

    def leave(self, seat: Seat) -> None:
        over = self._flights.leave(seat, self._clock.now_s())
        if over and (call := self._by_wire.get(seat.key.wire)) is not None:
            self._send(CacheLeave(call.call_id))
            self._drop(call)

    # link.Handler --------------------------------------------------------------------------------------

    def link_up(self, link: Link) -> None:
        """The Cache speaks first (CacheHello); until then this gateway does not know what was purged."""

    def link_down(self, link: Link, why: str) -> None:
        self._link = None
        self.semantic.linked(None)
        for call in list(self._calls.values()):
            self._drop(call)
            if call.state == "following":
                self._flights.remote_left(call.key.wire, self._clock.now_s())
            elif call.state == "asking":
                call.seat.resolve(self._flights.lead(call.seat, bypass=True))

    def link_message(self, link: Link, message: AnyMessage) -> None:
        match message:
            case CacheHello(boot=boot, purges=purges):
                self._local.hello(boot, purges)
                self._link, self._in_vain, self._asks_again_s = link, 0, 0.0
                self.semantic.linked(link)
            case CachePurge(scope=scope):
                self._local.purge(bytes.fromhex(scope))
                self._flights.purge(bytes.fromhex(scope))
            case CacheLook(ask_id=ask_id, scope=scope):
                held = [part.held(bytes.fromhex(scope)) for part in (self._local, self._flights)]
                link.send(CacheHeld(ask_id, sum(held)))
            case SemanticFound():
                self.semantic.found(message)
            case CacheAnswer() | CacheWant() | CacheFeed() | CacheLeave():
                if (call := self._calls.get(message.call_id)) is not None:
                    self._told(call, message)
            case _:
                pass

    # what the Cache says of a call ---------------------------------------------------------------------

    def _told(self, call: Call, message: CacheAnswer | CacheWant | CacheFeed | CacheLeave) -> None:
        match message:
            case CacheAnswer():
                self._answered(call, message)
            case CacheWant(have=have):
                self._want(call, have)
            case CacheFeed(parts=parts):
                if call.state == "following":
                    self._flights.remote_parts(call.key.wire, parts)
            case CacheLeave():
                self._remote_over(call, message)

    def _answered(self, call: Call, answer: CacheAnswer) -> None:
        call.answered()
        self._in_vain, self._heard_s, self._asks_again_s = 0, asyncio.get_running_loop().time(), 0.0
        wire, now_s = call.key.wire, self._clock.now_s()
        if answer.value:
            self._drop(call)
            try:
                kept = decode(answer.value)
            except BadValue:  # of another version: go on as if it were not there
                self._remote_over(call, CacheLeave(call.call_id))
                call.seat.resolve(self._flights.lead(call.seat))
                return
            self._local.put(CacheKey(wire, answer.person), kept, len(answer.value), answer.ttl_s, now_s)
            self._hit(call, kept, answer.ttl_s)
        elif answer.leader:
            promoted, call.state = call.state == "following", "leading"
            if promoted:
                self._flights.remote_left(wire, now_s)
            else:
                call.seat.resolve(self._flights.lead(call.seat))
        elif call.state in ("asking", "late") and self._flights.delegate(call.seat):
            call.state = "following"
            if not call.seat.resolve(Following(call.seat)):  # late, but nothing was generated yet
                self._flights.yielded += 1
                call.seat.yielded()
        else:  # too late: this gateway generates by itself
            self._send(CacheLeave(call.call_id))
            self._drop(call)
            call.seat.resolve(self._flights.lead(call.seat))

    def _hit(self, call: Call, kept: CachedAnswer, ttl_s: float) -> None:
        if call.seat.resolve(Hit(kept, ttl_s)):
            self._local.count(kept, "shared")
            call.seat.alone = True
        elif call.state != "following" and not (call.state == "late" and self._flights.delegate(call.seat)):
            return  # it came when this gateway generates already: its own followers follow that
        if (flight := self._flights.get(call.key.wire)) is not None:
            self._land(flight, kept)

    def _land(self, flight: SharedFlight, kept: CachedAnswer) -> None:
        """Everybody here who waits for another's answer has it."""
        self._flights.finish(flight.key, flight.leader)
        if isinstance(flight.leader, Seat):
            flight.leader.alone = True
        for _ in range(self._flights.end(flight, kept)):
            self._local.count(kept, "shared")

    def _want(self, call: Call, have: int) -> None:
        flight = self._flights.get(call.key.wire)
        if call.state == "following" or flight is None or call.wanted:
            return  # wanted before: what the Cache lacks is on its way, and would come twice
        call.wanted = True  # also while asking: a follower may come before the store has answered
        if flight.parts is None:  # too long to catch up with: let the other gateway generate
            self._send(CacheLeave(call.call_id))
            self._drop(call)
        elif len(flight.parts) > have:
            self._send(CacheFeed(call.call_id, tuple(flight.parts[have:])))

    def _remote_over(self, call: Call, left: CacheLeave) -> None:
        self._drop(call)
        if call.state != "following":
            return
        if not left.reason:
            self._flights.remote_left(call.key.wire, self._clock.now_s())
        elif (flight := self._flights.finish(call.key.wire, REMOTE)) is not None:
            self._flights.fail(flight, error_of(left))

    def _too_late(self, call: Call) -> None:
        call.state = "late"
        if not self._in_vain:
            self._heard_s = max(self._heard_s, call.asked_s)  # before that it was not asked
        self._in_vain += 1
        now_s = asyncio.get_running_loop().time()
        if self._in_vain >= PATIENCE and now_s - self._heard_s >= SILENT_S:
            self._asks_again_s = now_s + PAUSE_S
        call.seat.resolve(self._flights.lead(call.seat, bypass=True))

    def _send(self, message: object) -> None:
        if self._link is not None:
            self._link.send(message)

    def _drop(self, call: Call) -> None:
        call.answered()
        self._calls.pop(call.call_id, None)
        if self._by_wire.get(call.key.wire) is call:
            del self._by_wire[call.key.wire]
