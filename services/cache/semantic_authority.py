"""The semantic cache in the Cache's process: questions come in over gateways' links, hits go out, outcomes are
learned.

Rules: a shell around meanings.py. Answers are never held here: an entry says where its answer is filed, and the
response store seals, purges and ends it, so that an answer which is gone there is gone here, whatever this index still
knows.

The life of a call (link/semantic_messages.py): its text is embedded and compared; a certain hit is fetched from the
store and sent; when the gateway says what it generated instead, that is compared with the kept answer (judge.py), the
outcome is learned, and the new answer becomes an entry. A purge that came in between ends the call: nothing of it is
learned.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine

import msgspec

from ..clock import Clock
from ..link.asyncio_link import Link
from ..link.desk import Member
from ..link.semantic_messages import SemanticAsk, SemanticDone, SemanticFound
from .embed_queue import EmbedQueue
from .guards import Marks, marks_of
from .index import Vector
from .judge import Said, alike, judge
from .key import WIRE_BYTES, CacheKey
from .meanings import Meaning, Meanings, Near, TrustStats
from .semantic import Verdict
from .store import ResponseStore
from .value import BadValue, CachedAnswer, decode

log = logging.getLogger(__name__)


class SemanticStats(msgspec.Struct, frozen=True):
    """Counters since the start. Of `asked`: `found` were sent a hit (`used`: it came before the first token),
    `explored` were asked of the model because the kept answer was uncertain, `audited` although it was certain.
    `judged_right` of those were right. `unserved` had no vector: the model loads, is absent, or too many waited."""

    entries: int
    asked: int
    found: int
    used: int
    explored: int
    audited: int
    judged_right: int
    unserved: int
    broken: str
    tenants: tuple[TrustStats, ...]


class _Call:
    """One question under way. `near` once it was compared, `done` once the gateway said what became of it."""

    __slots__ = ("ask", "done", "key", "marks", "near", "over", "vector")

    def __init__(self, ask: SemanticAsk) -> None:
        self.ask = ask
        self.key = CacheKey(ask.key, ask.person)
        self.marks: Marks = marks_of(ask.text)
        self.vector: Vector | None = None
        self.near: Near | None = None
        self.done: SemanticDone | None = None
        self.over = False


class SemanticAuthority:
    """See the module. `spawn` runs work beside the event loop's turns. All methods on one event loop."""

    def __init__(
        self,
        store: ResponseStore,
        meanings: Meanings,
        embeds: EmbedQueue,
        clock: Clock,
        spawn: Callable[[Coroutine[object, object, None]], None],
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._store, self._clock, self._spawn, self._chance = store, clock, spawn, chance
        self.meanings, self._embeds = meanings, embeds
        self._calls: dict[Member, _Call] = {}
        self._counts = dict.fromkeys(
            ("asked", "found", "used", "explored", "audited", "judged_right", "unserved"), 0
        )

    def ask(self, link: Link, ask: SemanticAsk) -> None:
        """A gateway missed in the exact cache and generates; look for an answer beside."""
        if len(ask.key) != WIRE_BYTES or len(ask.namespace) != WIRE_BYTES or not 0.0 < ask.delta < 1.0:
            link.close("a question out of shape")
            return
        self._counts["asked"] += 1
        call = self._calls[link, ask.call_id] = _Call(ask)
        self._spawn(self._look_up(link, call))

    def done(self, link: Link, done: SemanticDone) -> None:
        """The gateway has its answer, from here or from the model, or none."""
        call = self._calls.get((link, done.call_id))
        if call is None:
            return
        call.done = done
        if done.used:
            self._counts["used"] += 1
        if done.used or not done.finish:
            self._forget(link, call)
        elif call.near is not None:
            self._spawn(self._learn(link, call))

    def link_down(self, link: Link) -> None:
        """The gateway is gone, and its questions with it."""
        for member in [member for member in self._calls if member[0] is link]:
            self._calls.pop(member).over = True

    def purge(self, scope: bytes) -> None:
        """Forget what is kept under a purge scope, and learn nothing from what is under way."""
        self.meanings.purge(scope)
        for member, call in list(self._calls.items()):
            if scope in call.key.scopes:
                self._forget(member[0], call)

    def held(self, scope: bytes) -> int:
        """Questions under a purge scope that are kept or under way."""
        return self.meanings.held(scope) + sum(scope in call.key.scopes for call in self._calls.values())

    def stats(self) -> SemanticStats:
        """Counters and sizes now."""
        return SemanticStats(
            entries=len(self.meanings),
            broken=self._embeds.broken,
            tenants=self.meanings.stats(),
            **self._counts,
        )

    def close(self) -> None:
        """Let go of the embedder's thread."""
        self._embeds.close()

    # ---------------------------------------------------------------------------------------------------

    async def _look_up(self, link: Link, call: _Call) -> None:
        ask = call.ask
        call.vector = await self._embeds.embed(ask.text)
        if call.over:
            return
        if call.vector is None:
            self._counts["unserved"] += 1
            self._forget(link, call)
            return
        now_s = self._clock.now_s()
        near = self.meanings.near(ask.namespace, ask.delta, call.vector, call.marks, self._chance(), now_s)
        if near.verdict is Verdict.HIT and near.meaning is not None:
            value, ttl_s = await self._fetch(near.meaning, ask.person)
            if call.over:
                return
            if value:
                if call.done is None:
                    self._counts["found"] += 1
                    link.send(SemanticFound(ask.call_id, value, ttl_s))
            else:
                near = Near(Verdict.MISS)
        elif near.verdict is not Verdict.MISS:
            self._counts["audited" if near.verdict is Verdict.AUDIT else "explored"] += 1
        call.near = near
        if call.done is not None:
            await self._learn(link, call)

    async def _learn(self, link: Link, call: _Call) -> None:
        """The model answered: was the kept answer right? The new one is kept either way: the more ways to ask for it
        are known, the nearer the next one is."""
        near, done, ask = call.near, call.done, call.ask
        assert near is not None and done is not None and call.vector is not None
        if near.meaning is not None:
            right = await self._right(near.meaning, call, done)
            if call.over:
                return
            if right is not None:
                self._counts["judged_right"] += right
                self.meanings.learn(near, ask.delta, right)
        if done.ttl_s > 0:
            expires_s = self._clock.now_s() + done.ttl_s
            self.meanings.add(ask.namespace, call.key, call.vector, call.marks, expires_s)
        self._forget(link, call)

    async def _right(self, meaning: Meaning, call: _Call, done: SemanticDone) -> bool | None:
        """Does the kept answer say what the model just said? None: it is gone, or could not be compared."""
        value, _ = await self._fetch(meaning, call.ask.person)
        said = _said(value)
        if said is None:
            return None
        verdict = judge(said, Said(done.text, done.finish))
        if verdict is not None:
            return verdict
        one, two = await asyncio.gather(self._embeds.embed(said.text), self._embeds.embed(done.text))
        return None if one is None or two is None else alike(float(one @ two))

    async def _fetch(self, meaning: Meaning, person: bytes) -> tuple[bytes, float]:
        """The kept answer, as whoever asks may have it; empty when it is not to be had. What is gone from the store is
        forgotten here."""
        found = await self._store.get(CacheKey(meaning.key.wire, person))
        if found.value is None and found.ticket is not None:
            self.meanings.drop(meaning)
        if found.value is None or meaning not in self.meanings:  # purged while the store was asked
            return b"", 0.0
        return found.value, found.ttl_s

    def _forget(self, link: Link, call: _Call) -> None:
        call.over = True
        self._calls.pop((link, call.ask.call_id), None)


def _said(value: bytes) -> Said | None:
    try:
        answer: CachedAnswer = decode(value)
    except BadValue:
        return None
    return Said(answer.choices[0].text, answer.choices[0].finish)
