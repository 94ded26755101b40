"""Steps 3 and 7 of the pipeline: is the answer known, is somebody making it, and keep it for the next who asks.

Rules: between the pipeline and the response cache (services/cache); knows no store and no link. The cache is never
needed: when it is dead or slow the request goes on alone.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from ..answer import AnswerHead, AnswerTail, Delta, Responder, TokenText, joined_calls
from ..cache import policy
from ..cache.key import CacheKey
from ..cache.question import question_of
from ..cache.seat import Asking, Following, Hit, Leading, LookedUp, Seat
from ..cache.semantic_client import SemanticCall
from ..cache.value import CachedAnswer, CachedChoice, replay
from ..errors import RequestError
from ..link.messages import FeedPart
from .admission import Work
from .beside import Beside
from .choice import Leases
from .generation import Generation
from .mesh import Mesh

REPLAY_PIECE_CHARS = 64


class CachedFlight:
    """What the cache made of one request. `verdict` is the x-cache header, `kind` says of a hit whether the question
    was the same or only its meaning; `answer` is the known answer, if any."""

    def __init__(self, verdict: str, *, answer: CachedAnswer | None = None) -> None:
        self.verdict = verdict
        self.kind = "exact" if answer is not None else ""
        self.answer = answer
        self.follows = False
        self.keeps_s = 0.0
        self._seat: Seat | None = None
        self._looked_up = True
        self._by_meaning: SemanticCall | None = None
        self._beside: Beside | None = None
        self._generation: Generation | None = None
        self._once_missed: Callable[[], None] | None = None
        self.abandoned = False

    @classmethod
    async def look_up(cls, mesh: Mesh, work: Work) -> CachedFlight:
        """Ask, and wait: nothing for an answer in this process, 2 ms at most for the Cache's."""
        flight, key, rank = cls._known(mesh, work)
        if key is not None:
            refresh = not flight._looked_up
            flight._seated(await mesh.cache.lookup(key, rank=rank, refresh=refresh))
        return flight

    @classmethod
    def begin(cls, mesh: Mesh, work: Work) -> CachedFlight:
        """Ask, and wait for nothing: while the Cache is asked the request generates as far as a lease (`leases`). If
        the answer is kept, the generation is told by cache_hit; if another gateway makes it, by cache_yield."""
        flight, key, rank = cls._known(mesh, work)
        if key is not None:
            flight._beside = Beside(mesh.queue)
            found = mesh.cache.begin(key, flight._told, rank=rank, refresh=not flight._looked_up)
            if not isinstance(found, Asking):
                flight._beside = None
            flight._seated(found)
        return flight

    @classmethod
    def _known(cls, mesh: Mesh, work: Work) -> tuple[CachedFlight, CacheKey | None, int]:
        """What this process knows. With a key: the Cache is to be asked, for a request of that rank."""
        config, principal = mesh.cache_config, work.principal
        decision = policy.decide(config, work.request, tenant_caches_sampled=principal.cache_sampled)
        if not decision.look_up and not decision.store:
            return cls("bypass"), None, 0
        key = mesh.keys.key(
            principal.tenant,
            work.model.identity_of(work.revision, work.adapter),
            work.request,
            work.prompts,
            mesh.policy.version,
        )
        if decision.look_up and (answer := mesh.cache.lookup_local(key)) is not None:
            return cls("hit", answer=answer), None, 0
        flight = cls("miss" if decision.look_up else "bypass")
        flight.keeps_s = policy.ttl_s(config) if decision.store else 0.0
        flight._looked_up = decision.look_up
        return flight, key, mesh.band_rank(work.band)

    def _seated(self, found: LookedUp | Asking) -> None:
        if isinstance(found, Hit):
            self.verdict, self.kind, self.answer = "hit", "exact", found.answer
            return
        self._seat, self.follows = found.seat, isinstance(found, Following)
        if isinstance(found, Leading) and found.bypass:
            self.verdict = "bypass"

    def _told(self, found: LookedUp) -> None:
        """The Cache answered `begin`, or did not in time."""
        if self.abandoned:
            if not isinstance(found, Hit):
                found.seat.leave()
            return
        beside, generation = self._beside, self._generation
        assert (
            beside is not None and generation is not None
        )  # nothing is awaited between `begin` and `attach`
        self._beside = self._generation = None
        once_missed, self._once_missed = self._once_missed, None
        if isinstance(found, Hit):
            self.verdict, self.kind = "hit", "exact"
            beside.drop()
            generation.cache_hit(found.answer)
            return
        self._seated(found)
        if self.follows:
            beside.drop()
            generation.cache_yield()
            return
        if once_missed is not None:
            once_missed()
        beside.open()

    def leases(self, queue: Leases) -> Leases:
        """The queue, as this request may use it."""
        return queue if self._beside is None else self._beside

    @property
    def feeds(self) -> bool:
        """Others may follow this generation, or its answer may be kept."""
        return self._seat is not None

    def feed(self, part: FeedPart) -> None:
        if self._seat is not None:
            self._seat.feed(part)

    def leave(self) -> None:
        """No part in the flight any more."""
        if self._seat is not None:
            self._seat.leave()

    def abandon(self) -> None:
        """The answer comes from elsewhere, and is for nobody else: whoever follows goes on alone."""
        self.abandoned = True
        if self._beside is not None:
            self._beside.drop()
        self.leave()

    def attach(self, follower: Generation) -> None:
        self._generation = follower if self._beside is not None else None
        if self._seat is not None:
            self._seat.attach(follower)

    def ask_by_meaning(self, mesh: Mesh, work: Work, generation: Generation) -> None:
        """Of a tenant that opted in: beside the generation, ask whether a question of the same meaning is answered
        already. The answer is taken if it comes before our first token; what we generate is learned from if not."""
        if self._beside is not None:  # the very same question may still be answered
            self._once_missed = lambda: self._ask_by_meaning(mesh, work, generation)
        else:
            self._ask_by_meaning(mesh, work, generation)

    def _ask_by_meaning(self, mesh: Mesh, work: Work, generation: Generation) -> None:
        delta, seat = work.principal.semantic_cache, self._seat
        if not 0.0 < delta < 1.0 or seat is None or self.follows or not (self._looked_up and self.keeps_s):
            return
        question = question_of(work.request)
        if question is None:
            return
        identity, policy_version = work.model.identity_of(work.revision, work.adapter), mesh.policy.version
        namespace = mesh.keys.namespace(
            work.principal.tenant, identity, work.request, question.context, policy_version
        )

        def take(answer: CachedAnswer) -> bool:
            if not generation.offer(msgspec.structs.replace(answer, prompt_tokens=work.prompt_tokens)):
                return False
            self.verdict, self.kind = "hit", "semantic"
            return True

        self._by_meaning = mesh.cache.semantic.begin(seat.key, namespace, question.text, delta, take)

    def headed(self, head: AnswerHead) -> AnswerHead:
        """The answer's head, as the look-ups turned out."""
        return msgspec.structs.replace(head, cache=self.verdict, cache_kind=self.kind)

    def land(self, answer: CachedAnswer) -> None:
        """The answer is complete."""
        if self._seat is not None:
            self._seat.store(answer, self.keeps_s)
        if self._by_meaning is not None:
            self._by_meaning.end(answer, self.keeps_s)

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, where: object) -> None:
        """Leave the flight however the request ends. Followers fail only when the request itself is at fault."""
        if self._seat is not None:
            if isinstance(error, RequestError):
                self._seat.fail(error)
            self._seat.leave()
        if self._by_meaning is not None:
            self._by_meaning.end(None, 0.0)
        self._by_meaning = self._generation = self._once_missed = None  # they hold on to the generation


def replay_answer(
    answer: CachedAnswer, head: AnswerHead, responder: Responder, *, stream: bool
) -> AnswerTail:
    """Say a known answer: the same text, token counts and finish reasons; in pieces where it is streamed."""
    responder.begin(head)
    for delta in replay(answer, REPLAY_PIECE_CHARS if stream else 0):
        responder.delta(delta)
    tail = AnswerTail(answer.usage(), answer.confidence)
    responder.end(tail)
    return tail


def to_keep(generation: Generation, tail: AnswerTail, generation_s: float) -> CachedAnswer:
    """What is kept of a finished generation, which took `generation_s` from the request's arrival on."""
    said: list[list[Delta]] = [[] for _ in generation.choices]
    for delta in generation.record or ():
        said[delta.choice].append(delta)
    choices = tuple(
        CachedChoice(
            text="".join(delta.text for delta in deltas),
            reasoning="".join(delta.reasoning for delta in deltas),
            num_tokens=len(choice.flow.emitted),
            finish=choice.finish or "stop",
            logprobs=_joined_logprobs(deltas),
            tool_calls=joined_calls(call for delta in deltas for call in delta.tool_calls),
        )
        for choice, deltas in zip(generation.choices, said, strict=True)
    )
    usage = tail.usage
    return CachedAnswer(
        choices,
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.cached_tokens,
        tail.confidence,
        max(0.0, generation_s - max(choice.flow.queue_wait_s for choice in generation.choices)),
        usage.reasoning_tokens,
    )


def _joined_logprobs(deltas: list[Delta]) -> tuple[TokenText, ...] | None:
    if all(delta.logprobs is None for delta in deltas):
        return None
    return tuple(entry for delta in deltas for entry in delta.logprobs or ())
