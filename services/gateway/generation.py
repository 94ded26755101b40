"""One request while it generates: all its choices, its deadline, its client.

Rules: a shell around choice.py and flow.py. A request is complete when its last choice is, and fails as a whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Protocol

from ..answer import AnswerHead, Delta, Responder, TokenText
from ..cache.value import CachedAnswer
from ..clock import Clock
from ..errors import ClientGone, MeshError, OverloadError
from ..link.messages import FeedPart
from ..outcome import Outcome, Reason
from ..request import TokenFrame, TokenLogprob
from ..text.json_pieces import JsonPieces
from .choice import Choice, Engines, Leases, Observer, Say
from .flow import ChoiceFlow, Phase
from .stream import TextStage


class Flight(Protocol):
    """The single flight that this generation is part of (answers.py)."""

    @property
    def feeds(self) -> bool: ...
    @property
    def follows(self) -> bool: ...
    def feed(self, part: FeedPart) -> None: ...
    def attach(self, follower: Generation) -> None: ...
    def leave(self) -> None: ...


class Generation:
    """All choices of a request, from the first lease to the last token."""

    def __init__(
        self,
        *,
        head: AnswerHead,
        clock: Clock,
        leases: Leases,
        engines: Engines,
        responder: Responder,
        observer: Observer,
        deadline_s: float,
        max_buffered_bytes: int,
        want_logprobs: bool,
        token_text: Callable[[int, TokenLogprob], TokenText],
        make_choice: MakeChoice = Choice,
    ) -> None:
        self._make_choice = make_choice
        self.clock, self.leases, self.engines, self.observer = clock, leases, engines, observer
        self.want_logprobs, self.token_text = want_logprobs, token_text
        self.choices: list[Choice] = []
        self.record: list[Delta] | None = None
        self.outcome = Outcome.COMPLETED
        self.hit: CachedAnswer | None = None
        self._flight: Flight | None = None
        self._head = head
        self._begun = False
        self._responder = responder
        # Only where the client can be sent single events at once (http_responders.StreamResponder).
        self._responder_plain: PlainOf | None = getattr(responder, "plain", None)
        self._deadline_s = deadline_s
        self._max_buffered_bytes = max_buffered_bytes
        self._open = 0
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def add(self, flow: ChoiceFlow, text: TextStage) -> None:
        """One more choice, before `run`."""
        self.choices.append(self._make_choice(self, len(self.choices), flow, text))

    def let_go(self) -> None:
        """After `run` and after whoever wanted the choices: undo the rings between them, the responder and this. What a
        request used is then free the moment it ends, and the next request gets the same memory, warm, instead of what
        the garbage collector has not come round to yet."""
        self.choices.clear()

    @property
    def astray(self) -> bool:
        """Part of the answer is of another revision than it was meant for: nobody else may have it."""
        return any(choice.flow.astray for choice in self.choices)

    def leave_flight(self) -> None:
        """Who follows this generation must not get what it makes: they go on alone."""
        for choice in self.choices:
            choice.feed_to(None)
        if self._flight is not None:
            self._flight.leave()

    async def run(self, flight: Flight) -> None:
        """Generate all choices, or follow a flight that does. Returns when the last one is complete; raises
        MeshError when one failed, after every other one was given up."""
        self._open = len(self.choices)
        self._flight = flight
        if flight.feeds and not flight.follows:
            self._lead(flight)
        loop = asyncio.get_running_loop()
        now_s = self.clock.now_s()
        timer = loop.call_later(max(0.0, self._deadline_s - now_s), self._overdue)
        try:
            if flight.follows:
                for choice in self.choices:
                    choice.flow.follow()
            else:
                for choice in self.choices:
                    choice.apply(choice.flow.start(now_s))
            flight.attach(self)
            await self._done
        finally:
            timer.cancel()
            for choice in self.choices:
                if choice.flow.phase is not Phase.DONE:  # only where the task was cancelled
                    choice.apply(choice.flow.on_cancel())

    # services.cache.seat.Follower: somebody else generates our answer ------------------------------------

    def cache_parts(self, parts: tuple[FeedPart, ...]) -> None:
        now_s = self.clock.now_s()
        for part in parts:
            choice = self.choices[part.choice]
            frame = TokenFrame(0, part.token_ids, part.finish, part.logprobs, part.cached_tokens)
            choice.on_frame(frame, now_s)

    def cache_hit(self, answer: CachedAnswer) -> None:
        """The whole answer came at once. Only when no part came before."""
        self.hit = answer
        if not self._done.done():
            self._done.set_result(None)

    def offer(self, answer: CachedAnswer) -> bool:
        """A kept answer to a question of the same meaning. False: the client sees our own already."""
        if self._begun or self._done.done():
            return False
        self.cache_hit(answer)
        return True

    def cache_yield(self) -> None:
        """Another gateway generates the same answer, and was first."""
        for choice in self.choices:
            choice.feed_to(None)
            choice.apply(choice.flow.on_yield())

    def cache_promoted(self) -> None:
        if self._flight is not None:
            self._lead(self._flight)
        now_s = self.clock.now_s()
        for choice in self.choices:
            choice.apply(choice.flow.on_promoted(now_s))

    def cache_failed(self, error: MeshError) -> None:
        self._stop(error, Outcome.FAILED)

    # ---------------------------------------------------------------------------------------------------

    def deltas(self, delta: Delta) -> None:
        """Hand on what became visible. The answer begins with its first piece, so that whatever is refused
        before that is refused with its own status."""
        if not self._begun:
            self._begun = True
            self._responder.begin(self._head)
        self._responder.delta(delta)
        if self.record is not None:
            self.record.append(delta)
        if self._responder.buffered_bytes > self._max_buffered_bytes:
            self._stop(ClientGone(Reason.SLOW_READER, "the client reads too slowly"), Outcome.CANCELLED)

    def plain(self, choice: int, pieces: JsonPieces) -> Say | None:
        """How that choice's tokens may go straight to the client, if nobody else wants them."""
        if self.record is not None or self._responder_plain is None:
            return None
        # Not a method of ours: the responder of a client that left is told nothing that would end its hold on us.
        return self._responder_plain(choice, pieces, partial(_by_the_long_way, self.choices))

    def _lead(self, flight: Flight) -> None:
        for choice in self.choices:
            choice.feed_to(flight.feed)

    def finished(self, choice: Choice) -> None:
        self._open -= 1
        if self._open == 0 and not self._done.done():
            self._done.set_result(None)

    def failed(self, choice: Choice, error: MeshError, outcome: Outcome) -> None:
        self._stop(error, outcome)

    def _overdue(self) -> None:
        error = OverloadError(Reason.DEADLINE_EXCEEDED, "the request's deadline has passed")
        self._stop(error, Outcome.EVICTED)

    def _stop(self, error: MeshError, outcome: Outcome) -> None:
        if self._done.done():
            return
        self.outcome = outcome
        self._done.set_exception(error)
        for choice in self.choices:
            if choice.flow.phase is not Phase.DONE:
                choice.apply(choice.flow.on_abort(error))


def _by_the_long_way(choices: list[Choice]) -> None:
    for choice in choices:
        choice.leave_short_way()


PlainOf = Callable[[int, JsonPieces, Callable[[], None]], Say | None]
"""Of a responder: how single tokens of a choice are said, given their texts as JSON; the last argument takes them back
to `deltas`."""

MakeChoice = Callable[[Generation, int, ChoiceFlow, TextStage], Choice]
"""Makes the choices of a generation."""
