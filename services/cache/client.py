"""A gateway's side of the response cache: answers in this process, flights in this process, one link to the
Cache.

How the pipeline uses it (nothing here raises; a dead or slow cache costs at most `store_timeout_s`):

    if (answer := client.lookup_local(key)) is not None: replay it          a µs or two, no await
    match await client.lookup(key, rank=band_rank):
        case Hit(answer, ttl_s):     replay it (x-cache: hit)
        case Leading(seat):          generate; seat.feed(part) per engine frame;
                                     at the end seat.store(answer, ttl_s), or seat.abandon(), or
                                     seat.fail(error)
        case Following(seat):        seat.attach(follower): somebody else generates the same answer

A leader must end with `store`, `fail` or `abandon`, a follower with `leave`; all are idempotent.

In-process answers are served only while the link to the Cache is up: a purge that this gateway could not hear
of must not find an answer here (a partition is noticed within DEAD_AFTER_S + 0.2 s; a purge is promised
within 1 s).
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable
from typing import Literal

from ..clock import Clock, SystemClock
from ..config import CacheConfig
from ..errors import MeshError, RequestError
from ..link.asyncio_link import Link, Redial, Resolve
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
from ..outcome import Reason
from .calls import Call, ClientStats
from .flight import Alone, Deliver, Effect, Flight, Flights, Follow, Lead
from .key import CacheKey
from .policy import may_keep
from .scoped_lru import ScopedLru
from .seat import REMOTE, Following, Hit, Leading, Remote, Seat
from .value import BadValue, CachedAnswer, decode, encode

DEAD_AFTER_S = 0.6
MAX_LOCAL_TTL_S = 300.0
SHARE, GRACE_SHARE, GRACES = 0.9, 0.5, 4
"""Of `store_timeout_s`: what a look-up waits (the rest is ours), and what it waits once more, up to `GRACES` times,
when the event loop comes to its bound later than `LAG_S`. Event loops run timers before they read sockets, so without
that 1,000 requests that arrive in one burst of 12 ms all miss an answer that is there."""
LAG_S = 0.0005


class CacheClient:
    """See the module. All methods on the gateway's event loop."""

    def __init__(self, config: CacheConfig, resolve: Resolve, name: str, clock: Clock | None = None) -> None:
        self._config = config
        self._clock = clock or SystemClock()
        self._local: ScopedLru[CachedAnswer] = ScopedLru(config.local_bytes)
        self._flights: Flights[Seat | Remote] = Flights()
        self._calls: dict[int, Call] = {}
        self._by_wire: dict[bytes, Call] = {}
        self._ids = itertools.count(1)
        self._known = ("", -1)
        self._link: Link | None = None
        self._redial = Redial(resolve, self, name, dead_after_s=DEAD_AFTER_S)
        self._counts = dict.fromkeys(("local_hits", "remote_hits", "generations", "bypassed", "joined"), 0)
        self._saved_tokens, self._saved_s = 0, 0.0

    def start(self) -> None:
        """Keep a link to the Cache from now on."""
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
        return ClientStats(
            saved_tokens=self._saved_tokens,
            saved_s=self._saved_s,
            local_entries=len(self._local),
            local_bytes=self._local.num_bytes,
            linked=self.linked,
            **self._counts,
        )

    # looking up ----------------------------------------------------------------------------------------

    def lookup_local(self, key: CacheKey) -> CachedAnswer | None:
        """An answer in this process, or None."""
        if self._link is None:
            return None
        entry = self._local.get(key.wire, self._clock.now_s())
        if entry is None:
            return None
        self._count_hit("local_hits", entry.value)
        return entry.value

    async def lookup(
        self, key: CacheKey, *, rank: int = 0, refresh: bool = False
    ) -> Hit | Leading | Following:
        """Ask the Cache, and join or open the key's flight. Ends within `store_timeout_s` (2 ms): who gets no
        answer leads. `rank` is the band's; `refresh` asks to generate anew (Cache-Control: no-cache)."""
        seat = Seat(self, key)
        flight = self._flights.get(key.wire)
        if flight is not None and refresh:
            seat.alone = True
            return self._lead(seat)
        effects = self._flights.join(key.wire, seat, self._clock.now_s(), rank=rank, scopes=key.scopes)
        seat.flight = self._flights.get(key.wire)
        if flight is not None:
            self._counts["joined"] += 1
            self._run(effects[1:])
            if isinstance(effects[0], Follow):
                return Following(seat)
            seat.alone = isinstance(effects[0], Alone)
            return self._lead(seat)
        if self._link is None:
            return self._lead(seat, bypass=True)
        loop = asyncio.get_running_loop()
        call_id = next(self._ids)
        seat.answer = loop.create_future()
        bound_s = SHARE * self._config.store_timeout_s
        timer = loop.call_later(bound_s, self._too_late, call_id, loop.time() + bound_s, GRACES)
        self._calls[call_id] = self._by_wire[key.wire] = Call(call_id, key, seat, timer)
        self._link.send(CacheGet(call_id, key.wire, True, key.person, rank, refresh))
        try:
            return await seat.answer
        except asyncio.CancelledError:
            seat.leave()
            raise

    # what seats do (SeatOwner) -------------------------------------------------------------------------

    def publish(self, seat: Seat, parts: tuple[FeedPart, ...]) -> None:
        wire = seat.key.wire
        if effects := self._flights.feed(wire, seat, parts, 0.0):
            self._run(effects)
        call = self._by_wire.get(wire)
        if call is not None and call.wanted:
            self._send(CacheFeed(call.call_id, parts))

    def finish(self, seat: Seat, answer: CachedAnswer, ttl_s: float) -> bool:
        flight = self._flights.finish(seat.key.wire, seat)
        if flight is None:
            return False
        keep = False
        if (call := self._by_wire.get(seat.key.wire)) is not None:
            value = b""
            if ttl_s > 0 and call.state == "leading" and not flight.tainted:
                value = encode(answer, compress_over_bytes=self._config.compress_over_bytes)
                keep = may_keep(self._config, len(value))
            if keep:
                self._keep(call.key.wire, call.key.person, answer, len(value), ttl_s)
            self._send(CachePut(call.key.wire, value if keep else b"", ttl_s if keep else 0.0, call.call_id))
            self._drop(call)
        for follower in _seats(flight):
            follower.ended(answer)
        return keep

    def fail(self, seat: Seat, error: MeshError) -> None:
        flight = self._flights.finish(seat.key.wire, seat)
        if flight is None:
            return
        if (call := self._by_wire.get(seat.key.wire)) is not None:
            self._send(CacheLeave(call.call_id, error.reason.value, error.message))
            self._drop(call)
        for follower in _seats(flight):
            follower.failed(error)

    def leave(self, seat: Seat) -> None:
        wire = seat.key.wire
        self._run(self._flights.leave(wire, seat, self._clock.now_s()))
        flight = self._flights.get(wire)
        if flight is not None and flight.leader is REMOTE and not flight.followers:
            self._flights.leave(wire, REMOTE, 0.0)
            flight = None
        if flight is None and (call := self._by_wire.get(wire)) is not None:
            self._send(CacheLeave(call.call_id))
            self._drop(call)

    # link.Handler --------------------------------------------------------------------------------------

    def link_up(self, link: Link) -> None:
        """The Cache speaks first (CacheHello); until then this gateway does not know what was purged."""

    def link_down(self, link: Link, why: str) -> None:
        self._link = None
        for call in list(self._calls.values()):
            self._drop(call)
            if call.state == "following":
                self._run(self._flights.leave(call.key.wire, REMOTE, self._clock.now_s()))
            elif call.state == "asking":
                call.seat.resolve(self._lead(call.seat, bypass=True))

    def link_message(self, link: Link, message: AnyMessage) -> None:
        match message:
            case CacheHello(boot=boot, purges=purges):
                if self._known != (boot, purges):
                    self._local.clear()
                    self._known = (boot, purges)
                self._link = link
            case CachePurge(scope=scope):
                self._known = (self._known[0], self._known[1] + 1)
                self._local.purge(bytes.fromhex(scope))
                self._flights.purge(bytes.fromhex(scope))
            case CacheAnswer(call_id=call_id):
                if (call := self._calls.get(call_id)) is not None:
                    self._answered(call, message)
            case CacheWant(call_id=call_id):
                if (call := self._calls.get(call_id)) is not None:
                    self._want(call, message)
            case CacheFeed(call_id=call_id, parts=parts):
                if (call := self._calls.get(call_id)) is not None and call.state == "following":
                    self._run(self._flights.feed(call.key.wire, REMOTE, parts, 0.0))
            case CacheLeave(call_id=call_id):
                if (call := self._calls.get(call_id)) is not None:
                    self._remote_over(call, message)
            case _:
                pass

    # ---------------------------------------------------------------------------------------------------

    def _answered(self, call: Call, answer: CacheAnswer) -> None:
        call.timer.cancel()
        wire, flight = call.key.wire, self._flights.get(call.key.wire)
        if answer.value:
            self._drop(call)
            try:
                kept = decode(answer.value)
            except BadValue:  # of another version: go on as if it were not there
                self._remote_over(call, CacheLeave(call.call_id))
                call.seat.resolve(self._lead(call.seat))
                return
            self._keep(wire, answer.person, kept, len(answer.value), answer.ttl_s)
            self._hit(call, flight, kept, answer.ttl_s)
        elif answer.leader:
            promoted, call.state = call.state == "following", "leading"
            if promoted:
                self._run(self._flights.leave(wire, REMOTE, self._clock.now_s()))
            else:
                call.seat.resolve(self._lead(call.seat))
        elif call.state == "asking" and flight is not None and flight.leader is call.seat:
            call.state = "following"
            self._flights.delegate(wire, call.seat, REMOTE)
            call.seat.resolve(Following(call.seat))
        else:  # too late: this gateway generates by itself
            self._send(CacheLeave(call.call_id))
            self._drop(call)
            call.seat.resolve(self._lead(call.seat))

    def _hit(
        self, call: Call, flight: Flight[Seat | Remote] | None, kept: CachedAnswer, ttl_s: float
    ) -> None:
        if call.seat.resolve(Hit(kept, ttl_s)):
            self._count_hit("remote_hits", kept)
            call.seat.alone = True
        elif call.state != "following":
            return  # it came too late, and this gateway generates: its own followers follow that
        if flight is not None and self._flights.finish(call.key.wire, flight.leader) is not None:
            if isinstance(flight.leader, Seat):
                flight.leader.alone = True
            for follower in _seats(flight):
                self._count_hit("remote_hits", kept)
                follower.ended(kept)

    def _want(self, call: Call, want: CacheWant) -> None:
        flight = self._flights.get(call.key.wire)
        if call.state == "following" or flight is None:
            return
        call.wanted = True  # also while asking: a follower may come before the store has answered
        if flight.parts is None:  # too long to catch up with: let the other gateway generate
            self._send(CacheLeave(call.call_id))
            self._drop(call)
        elif len(flight.parts) > want.have:
            self._send(CacheFeed(call.call_id, tuple(flight.parts[want.have :])))

    def _remote_over(self, call: Call, left: CacheLeave) -> None:
        self._drop(call)
        if call.state != "following":
            return
        if not left.reason:
            self._run(self._flights.leave(call.key.wire, REMOTE, self._clock.now_s()))
        elif (flight := self._flights.finish(call.key.wire, REMOTE)) is not None:
            for follower in _seats(flight):
                follower.failed(_error(left))

    def _too_late(self, call_id: int, due_s: float, graces: int) -> None:
        call, loop = self._calls[call_id], asyncio.get_running_loop()
        if call.state != "asking":
            return
        if graces and loop.time() - due_s > LAG_S:  # we were busy: the question may not even have left
            grace_s = GRACE_SHARE * self._config.store_timeout_s
            due_s = loop.time() + grace_s
            call.timer = loop.call_later(grace_s, self._too_late, call_id, due_s, graces - 1)
            return
        call.state = "late"
        call.seat.resolve(self._lead(call.seat, bypass=True))

    def _run(self, effects: Iterable[Effect[Seat | Remote]]) -> None:
        for effect in effects:
            seat = effect.member
            if not isinstance(seat, Seat):
                continue
            match effect:
                case Deliver(parts=parts):
                    seat.parts(parts)
                case Lead():
                    self._counts["generations"] += 1
                    seat.promoted()
                case Alone():
                    seat.alone = True
                case _:
                    pass

    def _lead(self, seat: Seat, *, bypass: bool = False) -> Leading:
        self._counts["bypassed" if bypass else "generations"] += 1
        return Leading(seat, bypass)

    def _keep(self, wire: bytes, person: bytes, answer: CachedAnswer, size: int, ttl_s: float) -> None:
        expires_s = self._clock.now_s() + min(ttl_s, MAX_LOCAL_TTL_S)
        self._local.put(wire, answer, size, expires_s, person, CacheKey(wire, person).scopes)

    def _count_hit(self, kind: Literal["local_hits", "remote_hits"], answer: CachedAnswer) -> None:
        self._counts[kind] += 1
        self._saved_tokens += answer.prompt_tokens + answer.completion_tokens
        self._saved_s += answer.generation_s

    def _send(self, message: object) -> None:
        if self._link is not None:
            self._link.send(message)

    def _drop(self, call: Call) -> None:
        call.timer.cancel()
        self._calls.pop(call.call_id, None)
        if self._by_wire.get(call.key.wire) is call:
            del self._by_wire[call.key.wire]


def _seats(flight: Flight[Seat | Remote]) -> list[Seat]:
    return [member for member in flight.followers if isinstance(member, Seat)]


def _error(left: CacheLeave) -> MeshError:
    try:
        return RequestError(Reason(left.reason), left.message)
    except ValueError:
        return RequestError(Reason.INTERNAL, left.message)
