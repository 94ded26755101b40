"""The journal without Ray: the book behind a link, and its store. One per mesh, in the Cache's process.

When it dies, owners tell the next one what they hold, with every token (JournalOpen with their epoch), as gateways
tell a new queue their leases; until they could, nobody becomes a new owner and no answer is called unknown
(patience.py). What was finished or paused is found in the store, if there is one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from functools import partial

import msgspec

from ..cache.key import WIRE_BYTES, CacheKey
from ..clock import Clock, SystemClock
from ..config import JournalConfig
from ..link.asyncio_link import Link
from ..link.desk import Desk, Member
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
)
from ..link.messages import AnyMessage
from .book import Book
from .effects import Deliver, Done, Effect, Follow, Have, Keep, Own, Tell, Watch
from .entry import Entry
from .forgotten import Forgotten
from .patience import Patience
from .records import encode, rebuild
from .store import JournalStore, StoreDown
from .writer import Writer

log = logging.getLogger(__name__)

TICK_S = 0.05
LIFE_SLACK_S = 3600.0
"""A record outlives its answer's `keep_s` by the longest that an answer may be in the making."""


class JournalStats(msgspec.Struct, frozen=True):
    """Counters since the start. `resumed` answers went on at another gateway, `followed` were read by another call."""

    answers: int
    bytes: int
    opened: int
    followed: int
    resumed: int
    ended: int
    conflicts: int
    store_failures: int


class JournalAuthority:
    """See the module. All methods on one event loop."""

    def __init__(
        self, config: JournalConfig, store: JournalStore | None = None, clock: Clock | None = None
    ) -> None:
        self._config, self.store, self._clock = config, store, clock or SystemClock()
        self.book: Book[Member] = Book(config)
        self._asking: set[Member] = set()
        self._forgotten = Forgotten()
        self._keys: dict[bytes, CacheKey] = {}
        self._lives: dict[bytes, tuple[bytes, bytes]] = {}
        self._writer: Writer | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._patience = Patience(config, 0.0)
        self._counts = dict.fromkeys(("opened", "followed", "resumed", "ended", "conflicts"), 0)
        self._desk: Desk[CacheKey] = Desk(self)
        self.key = self._desk.key

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """Listen; returns the address for gateways."""
        self.begin()
        return await self._desk.start(host, port)

    def begin(self) -> None:
        """What `start` does apart from listening."""
        self._patience = Patience(self._config, self._clock.now_s())
        if self.store is not None:
            self._writer = Writer(self.store, self._usurped)
        self._tick()

    async def stop(self) -> None:
        """Close links and the store."""
        if self._timer is not None:
            self._timer.cancel()
        self._desk.close("the journal stops")
        if self._writer is not None:
            await self._writer.close()

    def purge(self, scope: bytes) -> None:
        """Forget every answer under a scope, also when an owner brings it back. The store forgets by the cache's."""
        self._forgotten.add(scope)
        self._run(self.book.purge(scope))

    async def written(self) -> None:
        """What was to be kept or dropped is, or is given up."""
        if self._writer is not None:
            await self._writer.settled()

    def stats(self) -> JournalStats:
        """Counters and sizes now."""
        failures = self._writer.num_failures if self._writer is not None else 0
        return JournalStats(len(self.book), self.book.num_bytes, store_failures=failures, **self._counts)

    # link.Handler --------------------------------------------------------------------------------------

    def link_up(self, link: Link) -> None:
        self._desk.up(link)

    def link_down(self, link: Link, why: str) -> None:
        now_s = self._clock.now_s()
        for call_id, key in self._desk.down(link).items():
            self._run(self.book.unlinked(key.wire, (link, call_id), now_s))

    def link_message(self, link: Link, message: AnyMessage) -> None:
        if isinstance(message, JournalOpen):
            self._open(link, message)
            return
        call_id: int = getattr(message, "call_id", -1)
        member, now_s = (link, call_id), self._clock.now_s()
        key = self._desk.get(member)
        if key is None:
            return
        if member in self._asking and isinstance(message, JournalAppend | JournalEnd):
            return  # it comes back and does not know yet what is kept: JournalHave will ask for this again
        match message:
            case JournalAppend(seq=seq, parts=parts):
                effects = self.book.append(key.wire, member, parts, now_s)
                refused = any(isinstance(e, Tell | Have) and e.member == member for e in effects)
                self._run(effects, None if refused else partial(link.send, JournalAck(call_id, seq)))
            case JournalEnd(tail=tail):
                effects = self.book.end(key.wire, member, tail, now_s)
                if any(isinstance(e, Tell) and e.member == member for e in effects):
                    self._run(effects)
                else:
                    self._counts["ended"] += 1
                    self._desk.end(member)
                    self._run(effects, partial(link.send, JournalAck(call_id, 0, True)))
            case JournalFail(reason=reason, message=text):
                self._desk.end(member)
                self._run(self.book.fail(key.wire, member, reason, text))
            case JournalRelease():
                self._desk.end(member)
                self._run(self.book.leave(key.wire, member, now_s))
            case _:
                log.warning("%s sent a %s to the journal", link.name, type(message).__name__)

    # ---------------------------------------------------------------------------------------------------

    def _open(self, link: Link, asked: JournalOpen) -> None:
        if len(asked.key) != WIRE_BYTES:
            link.close("a key of the wrong length")
            return
        key = CacheKey(asked.key, asked.person)
        self._desk.open((link, asked.call_id), key)
        self._asking.add((link, asked.call_id))
        known = self.book.get(key.wire) is not None
        if known or (self.store is None and self._patience.until_s(asked) <= self._clock.now_s()):
            self._opened(link, asked, key)
        else:
            self._desk.spawn(self._look_up(link, asked, key))

    async def _look_up(self, link: Link, asked: JournalOpen, key: CacheKey) -> None:
        """A key that this book does not know: ask the store, and give owners of an earlier life time to speak."""
        member, until_s = (link, asked.call_id), self._patience.until_s(asked)
        told = await self._load(key)
        waits = self._waits(member, key, until_s)
        while self._waits(member, key, until_s):  # noqa: ASYNC110  # seldom, short, and over for three reasons
            await asyncio.sleep(min(TICK_S, until_s - self._clock.now_s()))
        if waits:  # the store may be back by now
            told = await self._load(key)
        self._asking.discard(member)
        if self._desk.get(member) is None:
            return
        if told or asked.epoch or self.book.get(key.wire) is not None:
            self._opened(link, asked, key)
        else:
            self._tell(member, Tell(member, "off"))

    def _waits(self, member: Member, key: CacheKey, until_s: float) -> bool:
        asks = self._desk.get(member) is not None
        return asks and self.book.get(key.wire) is None and self._clock.now_s() < until_s

    async def _load(self, key: CacheKey) -> bool:
        """Put into the book what the store has of a key. False: the store did not say."""
        if self.store is None or self.book.get(key.wire) is not None:
            return True
        try:
            kept = await self.store.load(key)
        except StoreDown as error:
            log.debug("the journal's store does not answer: %s", error)
            return False
        if kept and self.book.get(key.wire) is None:
            self._restore(key, [one.record for one in kept])
            if self._writer is not None:
                self._writer.loaded(key, kept[-1].place)
        return True

    def _restore(self, key: CacheKey, records: list[bytes]) -> None:
        now_s = self._clock.now_s()
        entry = rebuild(key.wire, records, key.scopes, now_s)
        if entry is not None:
            found: Entry[Member] = entry  # type: ignore[assignment]  # nobody is a member of it yet
            self._keys[key.wire] = key
            self._lives[key.wire] = (entry.fingerprint, entry.head)
            self.book.restore(found, now_s)

    def _opened(self, link: Link, asked: JournalOpen, key: CacheKey) -> None:
        member, now_s, wire = (link, asked.call_id), self._clock.now_s(), key.wire
        self._asking.discard(member)
        if self.book.get(wire) is None:
            if asked.epoch and self._forgotten.covers(key.scopes):
                self._tell(member, Tell(member, "gone"))
                return
            self._keys[wire], self._lives[wire] = key, (asked.fingerprint, asked.head)
        if asked.epoch:
            print_, head = asked.fingerprint, asked.head
            self._run(self.book.hold(wire, member, print_, head, key.scopes, asked.epoch, now_s))
            return
        effects = self.book.open(
            wire, member, asked.fingerprint, asked.head, key.scopes, now_s, resume=asked.resume
        )
        self._run(effects)
        if self.book.get(wire) is None:
            self._keys.pop(wire, None)
            self._lives.pop(wire, None)

    def _run(self, effects: Iterable[Effect[Member]], then: Callable[[], None] | None = None) -> None:
        """Run effects; call `then` when what is to be kept is kept."""
        for effect in effects:
            if isinstance(effect, Keep):
                if self._keep(effect, then):
                    then = None
                continue
            link, call_id = effect.member
            match effect:
                case Follow(head=head, parts=parts):
                    self._counts["followed"] += 1
                    link.send(JournalState(call_id, "follow", head=head))
                    if parts:
                        link.send(JournalParts(call_id, parts))
                case Own(epoch=epoch, head=head):
                    self._counts["opened" if epoch == 1 else "resumed"] += 1
                    link.send(JournalState(call_id, "own", epoch, head))
                case Deliver(parts=parts):
                    link.send(JournalParts(call_id, parts))
                case Done(tail=tail):
                    self._desk.end(effect.member)
                    link.send(JournalDone(call_id, tail))
                case Have(counts=counts):
                    link.send(JournalHave(call_id, counts))
                case Watch(followers=followers):
                    link.send(JournalWatch(call_id, followers))
                case Tell():
                    self._tell(effect.member, effect)
        if then is not None:
            then()

    def _tell(self, member: Member, tell: Tell[Member]) -> None:
        link, call_id = member
        self._counts["conflicts"] += tell.state == "conflict"
        self._desk.end(member)
        link.send(JournalState(call_id, tell.state, reason=tell.reason, message=tell.message))

    def _keep(self, keep: Keep, then: Callable[[], None] | None) -> bool:
        """Hand it to the store; True: with `then`."""
        key = self._keys.get(keep.key)
        if key is None:
            return False
        if self._writer is not None:
            record = encode(keep, *self._lives[keep.key])
            life_s = self._config.keep_s if keep.what == "end" else self._config.keep_s + LIFE_SLACK_S
            self._writer.keep(key, keep.epoch, record, life_s, then)
        if keep.what == "drop":
            del self._keys[keep.key], self._lives[keep.key]
        return self._writer is not None

    def _usurped(self, wire: bytes) -> None:
        """The store has a later owner than this book knows: another authority runs beside us."""
        self._run(self.book.usurped(wire))
        self._keys.pop(wire, None)
        self._lives.pop(wire, None)

    def _tick(self) -> None:
        self._run(self.book.tick(self._clock.now_s()))
        self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)
