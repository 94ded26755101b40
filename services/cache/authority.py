"""The Cache service without Ray: owns the store and the flights, answers gateways over their links.

One per mesh. What it knows of flights is soft: when it dies, gateways go on alone, and what they then put is
refused, because nobody here remembers that it was not purged meanwhile. The store outlives it.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterable

import msgspec

from ..clock import Clock, SystemClock
from ..config import CacheConfig
from ..link.asyncio_link import Link
from ..link.cache_messages import CacheHeld
from ..link.desk import Desk, Member
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
)
from ..link.semantic_messages import SemanticAsk, SemanticDone
from .embed_queue import EmbedQueue
from .flight import Alone, Deliver, Effect, Flight, Flights, Follow, Lead, Want
from .index import ExactIndex, Index
from .key import WIRE_BYTES, CacheKey
from .meanings import Meanings
from .roll_call import RollCall
from .semantic_authority import SemanticAuthority, SemanticStats
from .store import Found, ResponseStore, StoreDown, StoreStats, Ticket

log = logging.getLogger(__name__)

EXPIRE_EVERY_S = 5.0
MAX_PURGES_KNOWN = 10_000
"""Purges that a look-up under way (milliseconds) may have missed; far more than there can be."""


class AuthorityStats(msgspec.Struct, frozen=True):
    """Counters since the start. `generations` are misses that became leaders; `followed` joined a flight."""

    store: StoreStats
    gateways: int
    flights: int
    hits: int
    generations: int
    followed: int
    promoted: int
    stored: int
    refused: int
    purges: int
    owed_purges: int
    semantic: SemanticStats | None = None


class Authority:
    """See the module. Without `embeds` there is no semantic cache. All methods on one event loop."""

    def __init__(
        self,
        store: ResponseStore,
        config: CacheConfig,
        clock: Clock | None = None,
        embeds: EmbedQueue | None = None,
        make_index: Callable[[int], Index] = ExactIndex,
    ) -> None:
        self.store, self._config, self._clock = store, config, clock or SystemClock()
        self._flights: Flights[Member] = Flights()
        self._tickets: dict[bytes, Ticket] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._boot, self._purges, self._owed = secrets.token_hex(8), 0, 0
        self._purged: OrderedDict[bytes, int] = OrderedDict()
        self._counts = dict.fromkeys(("hits", "generations", "followed", "promoted", "stored", "refused"), 0)
        self._desk: Desk[CacheKey] = Desk(self)
        self.key, self.gateways = self._desk.key, RollCall(self._desk)
        self._semantic: SemanticAuthority | None = None
        if embeds is not None:
            meanings = Meanings(make_index, config.semantic_max_entries)
            self._semantic = SemanticAuthority(store, meanings, embeds, self._clock, self._desk.spawn)

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """Listen; returns the address for gateways."""
        self._expire()
        return await self._desk.start(host, port)

    async def stop(self) -> None:
        """Close links and the store."""
        if self._timer is not None:
            self._timer.cancel()
        self._desk.close("the cache stops")
        if self._semantic is not None:
            self._semantic.close()
        await self.store.close()

    async def purge(self, scope: bytes) -> bool:
        """Destroy everything under `scope`: in the store, in every gateway's memory, and in flights under way, whose
        answers will not be kept. In force at once here and in every gateway that is linked (one that is not serves
        nothing from memory). False: the store cannot confirm yet; it will, before it answers again."""
        self._purges += 1
        self._purged[scope] = self._purges
        while len(self._purged) > MAX_PURGES_KNOWN:
            self._purged.popitem(last=False)
        self._flights.purge(scope)
        if self._semantic is not None:
            self._semantic.purge(scope)
        for link in self._desk:
            link.send(CachePurge(scope.hex()))
        try:
            await self.store.purge(scope)
        except StoreDown as error:
            self._owed += 1
            log.warning("purge not confirmed: %s", error)
            return False
        return True

    def held(self, scope: bytes) -> tuple[int, int]:
        """Under a purge scope: answers under way that may still be stored, and questions that are known by meaning."""
        return self._flights.held(scope), self._semantic.held(scope) if self._semantic is not None else 0

    def stats(self) -> AuthorityStats:
        """Counters and sizes now."""
        return AuthorityStats(
            store=self.store.stats(),
            gateways=len(self._desk),
            flights=len(self._flights),
            purges=self._purges,
            owed_purges=self._owed,
            semantic=self._semantic.stats() if self._semantic is not None else None,
            **self._counts,
        )

    # link.Handler --------------------------------------------------------------------------------------

    def link_up(self, link: Link) -> None:
        self._desk.up(link)
        link.send(CacheHello(self._boot, self._purges))

    def link_down(self, link: Link, why: str) -> None:
        for call_id, key in self._desk.down(link).items():
            self._run(self._flights.leave(key.wire, (link, call_id), self._clock.now_s()), key.wire)
        self.gateways.down(link)
        if self._semantic is not None:
            self._semantic.link_down(link)

    def link_message(self, link: Link, message: AnyMessage) -> None:
        match message:
            case CacheGet():
                self._get(link, message)
            case CacheFeed(call_id=call_id, parts=parts):
                if (key := self._desk.get((link, call_id))) is not None:
                    now_s = self._clock.now_s()
                    self._run(self._flights.feed(key.wire, (link, call_id), parts, now_s), key.wire)
            case CachePut():
                self._put(link, message)
            case CacheLeave(call_id=call_id):
                if (key := self._desk.end((link, call_id))) is not None:
                    self._leave((link, call_id), key, message)
            case SemanticAsk():
                if self._semantic is not None:
                    self._semantic.ask(link, message)
            case SemanticDone():
                if self._semantic is not None:
                    self._semantic.done(link, message)
            case CachePurge(scope=scope):
                self._desk.spawn(self._purge_asked(scope))
            case CacheHeld():
                self.gateways.told(link, message)
            case _:
                log.warning("%s sent a %s to the cache", link.name, type(message).__name__)

    # ---------------------------------------------------------------------------------------------------

    def _get(self, link: Link, asked: CacheGet) -> None:
        if len(asked.key) != WIRE_BYTES:
            link.close("a key of the wrong length")
            return
        key, seat = CacheKey(asked.key, asked.person), (link, asked.call_id)
        self._desk.open(seat, key)
        flight = self._flights.get(key.wire)
        if asked.refresh and flight is not None:
            self._run([Alone(seat)], key.wire)  # the flight's answer may be older than the question
            return
        now_s = self._clock.now_s()
        effects = self._flights.join(key.wire, seat, now_s, rank=asked.rank, scopes=key.scopes)
        if flight is None:
            flight = self._flights.get(key.wire)
            assert flight is not None
            purges = self._purges

            def told(found: Found) -> None:
                self._looked_up(flight, seat, found, purges, refresh=asked.refresh)

            self.store.look(key, told)
        else:
            self._run(effects, key.wire)

    def _looked_up(
        self, flight: Flight[Member], seat: Member, found: Found, purges: int, *, refresh: bool
    ) -> None:
        """What the store holds for the first who asked. `purges`: how many there were when it was asked."""
        key = flight.key
        current = self._flights.get(key) is flight
        purged = flight.tainted or self._purged.get(b"p" + found.person, 0) > purges
        if found.value is None or refresh or purged:
            if current and found.ticket is not None:
                self._tickets[key] = found.ticket
            self._counts["generations"] += 1
            if self._desk.get(seat) is not None:
                seat[0].send(CacheAnswer(seat[1], b"", True))
            return
        waiting = {seat}
        if current and self._flights.finish(key, flight.leader) is not None:
            waiting.update((flight.leader, *flight.followers))
        for each in waiting:
            self._answer(each, found)

    def _answer(self, seat: Member, found: Found) -> None:
        if self._desk.end(seat) is not None:
            self._counts["hits"] += 1
            seat[0].send(CacheAnswer(seat[1], found.value or b"", False, found.ttl_s, found.person))

    def _put(self, link: Link, put: CachePut) -> None:
        seat = (link, put.call_id)
        key = self._desk.end(seat)
        if key is None:
            self._counts["refused"] += 1
            return
        flight = self._flights.finish(key.wire, seat)
        if flight is None:
            self._counts["refused"] += 1
            self._run(self._flights.leave(key.wire, seat, self._clock.now_s()), key.wire)
            return
        ticket = self._tickets.pop(key.wire, None)
        keep = put.ttl_s > 0 and not flight.tainted and 0 < len(put.value) <= self._config.max_value_bytes
        for follower, call_id in flight.followers:
            if self._desk.end((follower, call_id)) is not None:
                if keep and ticket is not None:
                    follower.send(CacheAnswer(call_id, put.value, False, put.ttl_s, ticket.key.person))
                else:
                    follower.send(CacheLeave(call_id))
        if keep and ticket is not None:
            self._desk.spawn(self._store_it(ticket, put.value, put.ttl_s))
        elif put.ttl_s > 0:
            self._counts["refused"] += 1

    async def _store_it(self, ticket: Ticket, value: bytes, ttl_s: float) -> None:
        stored = await self.store.put(ticket, value, ttl_s)
        self._counts["stored" if stored else "refused"] += 1

    def _leave(self, seat: Member, key: CacheKey, left: CacheLeave) -> None:
        flight = self._flights.finish(key.wire, seat) if left.reason else None
        if flight is None:
            self._run(self._flights.leave(key.wire, seat, self._clock.now_s()), key.wire)
            return
        self._tickets.pop(key.wire, None)
        for follower, call_id in flight.followers:
            if self._desk.end((follower, call_id)) is not None:
                follower.send(CacheLeave(call_id, left.reason, left.message))

    async def _purge_asked(self, scope: str) -> None:
        try:
            await self.purge(bytes.fromhex(scope))
        except ValueError:
            log.warning("a purge of something that is no scope")

    def _run(self, effects: Iterable[Effect[Member]], wire: bytes) -> None:
        for effect in effects:
            link, call_id = effect.member
            match effect:
                case Lead(promoted=promoted):
                    self._counts["promoted"] += promoted
                    link.send(CacheAnswer(call_id, b"", True))
                case Alone():
                    self._counts["generations"] += 1
                    link.send(CacheAnswer(call_id, b"", True))
                case Follow():
                    self._counts["followed"] += 1
                    link.send(CacheAnswer(call_id, b"", False))
                case Deliver(parts=parts):
                    link.send(CacheFeed(call_id, parts))
                case Want(have=have):
                    link.send(CacheWant(call_id, have))
        if self._flights.get(wire) is None:
            self._tickets.pop(wire, None)

    def _expire(self) -> None:
        for wire, effects in self._flights.expire(self._clock.now_s()):
            self._run(effects, wire)
        self._timer = asyncio.get_running_loop().call_later(EXPIRE_EVERY_S, self._expire)
