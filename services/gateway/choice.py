"""One choice of a request while it generates: its flow and its text, driven by the queue and by an engine.

Rules: a shell. It runs the effects that flow.py decides and hands texts on; per token it is a chain of plain
calls: mux → on_frame → flow.accept → text.push → responder.delta. No task, no await, no timer per token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from ..answer import Delta, TokenText
from ..clock import Clock
from ..errors import MeshError
from ..link.messages import Acquire, FeedPart, Grant, Refuse, Release, StreamFailed, Submit
from ..outcome import Outcome
from ..request import FinishReason, TokenFrame, TokenLogprob
from ..text.json_pieces import JsonPieces
from .effects import AskLease, CloseStream, DropTicket, Effect, Finished, OpenStream, ReturnLease
from .flow import ChoiceFlow
from .migrate import Loss
from .mux import Receiver
from .pace import Pace
from .stream import TextStage

MOVES = frozenset(("lost", "handed_back", "preempted"))
REPORT_MASK = 7
"""Of a token's position: one token in 8 is a word to the queue and the observer."""


class Leases(Protocol):
    """The queue as a choice uses it (services/queue/client.py)."""

    def acquire(self, acquire: Acquire, holder: Choice) -> None: ...
    def cancel(self, ticket: int) -> None: ...
    def release(self, release: Release) -> None: ...
    def progress(self, ticket: int, num_tokens: int) -> None: ...


class Engines(Protocol):
    """The engines as a choice uses them (mux.py)."""

    def open(self, grant: Grant, submit: Submit, receiver: Receiver) -> None: ...
    def close(self, engine_id: str, stream_id: int) -> None: ...


class Observer(Protocol):
    """What wants to know (services/telemetry/trace.py)."""

    def leased(self, queue_wait_s: float) -> None: ...
    def migrated(self, why: str) -> None: ...
    def paid(self, cost: float) -> None: ...
    def tokens(self, num_tokens: int, now_s: float, choice: int = 0) -> None: ...
    def gaps(self) -> list[int]: ...
    def paced(self, num_tokens: int, last_s: float, longest_s: float, choice: int = 0) -> None: ...


Say = Callable[[int], None]
"""Sends one token to the client, in an event of its own. Raises KeyError where its text is not whole characters."""

_PACE = Pace()


class Owner(Protocol):
    """The request that a choice belongs to (generation.py)."""

    clock: Clock
    leases: Leases
    engines: Engines
    observer: Observer
    want_logprobs: bool
    token_text: Callable[[int, TokenLogprob], TokenText]

    def deltas(self, delta: Delta) -> None: ...
    def plain(self, choice: int, pieces: JsonPieces) -> Say | None: ...
    def finished(self, choice: Choice) -> None: ...
    def failed(self, choice: Choice, error: MeshError, outcome: Outcome) -> None: ...
    def leave_flight(self) -> None: ...


class Choice:
    """One choice. Implements mux.Receiver and the queue client's holder.

    `plain`: nothing but text is said (no log-probabilities, no tools), which is what nearly every token is. Where
    nobody else wants the tokens either (no cache, no follower, no stop string, no policy), such a token takes the
    short way: what it costs is memory that other streams have pushed out of the processor's caches since this
    stream's last token, so the short way touches few objects, and tells observer and queue of its tokens now and then.
    """

    __slots__ = (
        "_alone", "_counted", "_emitted", "_feed", "_gaps", "_generation", "_last_s", "_last_text", "_longest_s",
        "_max_tokens", "_pace", "_pending_logprobs", "_pending_tokens", "_plain", "_progress", "_reported",
        "_say_plain", "_text", "finish", "flow", "index", "thought",
    )  # fmt: skip

    def __init__(self, generation: Owner, index: int, flow: ChoiceFlow, text: TextStage) -> None:
        self._generation, self.index, self.flow, self._text = generation, index, flow, text
        self.finish: FinishReason | None = None
        self._counted, self._progress = generation.observer.tokens, generation.leases.progress
        self._feed: Callable[[FeedPart], None] | None = None
        self._say_plain: Say | None = None
        self.thought = False  # there was reasoning before the answer
        self._simplify()
        self._emitted, self._max_tokens = flow.emitted, flow.max_tokens
        self._gaps: list[int] = []
        self._pace = _PACE
        self._reported = 0
        self._last_s = self._longest_s = 0.0
        self._last_text = ""
        self._pending_tokens = 0
        self._pending_logprobs: list[TokenText] = []

    def _simplify(self) -> None:
        text, logprobs = self._text, self._generation.want_logprobs  # again when the reasoning is over
        self._plain = not logprobs and not text.has_tools and not text.may_reason
        self._alone = self._plain and text.plain

    def feed_to(self, feed: Callable[[FeedPart], None] | None) -> None:
        """Others may follow this choice's tokens."""
        self._feed = feed
        self.leave_short_way()

    # from the queue ----------------------------------------------------------------------------------------

    def on_grant(self, grant: Grant) -> None:
        self._generation.observer.leased(grant.queue_wait_s)
        self.apply(self.flow.on_grant(grant, self._generation.clock.now_s()))
        if self._feed is not None and self.flow.astray:
            self._generation.leave_flight()

    def on_refuse(self, refuse: Refuse) -> None:
        self.apply(self.flow.on_refuse(refuse, self._generation.clock.now_s()))

    def on_preempt(self, lease_id: int) -> None:
        self.leave_short_way()
        self.apply(self.flow.on_preempt(lease_id, self._generation.clock.now_s()))

    # from the engine ---------------------------------------------------------------------------------------

    def on_frame(self, frame: TokenFrame, now_s: float) -> None:
        say, position = self._say_plain, frame.index
        if say is not None:
            ids, emitted = frame.token_ids, self._emitted
            if (
                position == len(emitted)
                and len(ids) == 1
                and position < self._max_tokens
                and frame.finish is None
                and frame.logprobs is None
            ):
                token_id = ids[0]
                try:
                    say(token_id)
                except KeyError:  # not whole characters
                    pass
                else:
                    emitted.append(token_id)
                    pace = self._pace
                    if pace.from_s is not self._last_s or pace.to_s is not now_s:
                        pace.measure(self._last_s, now_s)
                    self._last_s = now_s
                    self._gaps[pace.bucket] += 1
                    if pace.gap_s > self._longest_s:
                        self._longest_s = pace.gap_s
                    if not position & REPORT_MASK:
                        self._report()
                    return
            self.leave_short_way()
        flow = self.flow
        had = len(flow.emitted)
        ids = flow.accept(frame)
        if ids is None:  # a token is missing: the engine is incoherent
            self.apply(flow.on_lost(now_s))
            return
        num_ids = len(ids)
        self._counted(num_ids, now_s, self.index)
        if flow.grant is not None:
            self._progress(flow.ticket, num_ids)
            if self._feed is not None:
                self._feed(FeedPart(self.index, ids, frame.finish, frame.logprobs, frame.cached_tokens))
        text, used = self._text.push(ids)
        if used < num_ids:
            del flow.emitted[had + used :]
        self._pending_tokens += used
        if frame.logprobs is not None:
            repeated = max(0, had - frame.index) if frame.index >= 0 else 0
            self._note_logprobs(ids[:used], frame.logprobs[repeated:])
        if self._text.stopped:
            self._finish(text, flow.on_stop())
        elif frame.finish is not None:
            self._finish(text, flow.on_finish(frame.finish))
        elif text:
            if self._plain:
                self._generation.deltas(Delta(self.index, text, None, None, (), self._pending_tokens))
                self._pending_tokens = 0
                if self._alone and self._feed is None:
                    self._take_short_way(now_s)
            else:
                self._say(text, None)

    def _take_short_way(self, now_s: float) -> None:
        """For the next tokens, if the client takes them as they come."""
        pieces = self._text.json_pieces()
        say = self._generation.plain(self.index, pieces) if pieces is not None else None
        if say is not None:
            self._gaps = self._generation.observer.gaps()
            self._last_s, self._reported = now_s, len(self._emitted)
            self._say_plain = say

    def leave_short_way(self) -> None:
        """The next token goes the long way."""
        if self._say_plain is not None:
            self._say_plain = None
            self._report()

    def _report(self) -> None:
        """Tell the observer and the queue of the tokens that went the short way."""
        tokens = len(self._emitted) - self._reported
        if tokens:
            self._generation.observer.paced(tokens, self._last_s, self._longest_s, self.index)
            self._progress(self.flow.ticket, tokens)
            self._reported += tokens

    def on_stream_failed(self, failed: StreamFailed) -> None:
        self.leave_short_way()
        self.apply(self.flow.on_stream_failed(failed, self._generation.clock.now_s()))

    def on_lost(self, loss: Loss) -> None:
        self.leave_short_way()
        self.apply(self.flow.on_lost(self._generation.clock.now_s(), loss))

    def apply(self, effects: Sequence[Effect]) -> None:
        """Run effects in order."""
        if not effects:
            return
        self.leave_short_way()
        generation = self._generation
        for effect in effects:  # not a match statement: that costs four times as much, six times a request
            if isinstance(effect, ReturnLease):
                generation.leases.release(effect.release)
                if (outcome := effect.release.outcome) in MOVES:
                    generation.observer.migrated(outcome)
                if effect.cost_per_s:
                    generation.observer.paid(effect.cost_per_s * (generation.clock.now_s() - effect.since_s))
            elif isinstance(effect, Finished):
                self._end(effect.finish)
            elif isinstance(effect, AskLease):
                generation.leases.acquire(effect.acquire, self)
            elif isinstance(effect, OpenStream):
                generation.engines.open(effect.grant, effect.submit, self)
            elif isinstance(effect, CloseStream):
                generation.engines.close(effect.engine_id, effect.stream_id)
            elif isinstance(effect, DropTicket):
                generation.leases.cancel(effect.ticket)
            else:
                generation.failed(self, effect.error, effect.outcome)

    def _finish(self, text: str, effects: list[Effect]) -> None:
        self._last_text = text
        self.apply(effects)

    def _end(self, finish: str) -> None:
        text = self._last_text + self._text.flush()
        self.finish = self._text.finish_reason("length" if finish == "length" else "stop")
        self._say(text, self.finish)
        self._generation.finished(self)

    def _note_logprobs(self, ids: tuple[int, ...], logprobs: Sequence[TokenLogprob]) -> None:
        generation = self._generation
        for token_id, logprob in zip(ids, logprobs, strict=False):
            self._text.note_logprob(logprob.logprob)
            if generation.want_logprobs:
                self._pending_logprobs.append(generation.token_text(token_id, logprob))

    def _say(self, text: str, finish: FinishReason | None) -> None:
        generation = self._generation
        logprobs = self._shown_logprobs(last=finish is not None) if generation.want_logprobs else None
        reasoning = ""
        if self._text.may_reason:
            reasoning, text = self._text.split_reasoning(text, last=finish is not None)
            self.thought = self.thought or bool(reasoning)
            if not self._text.may_reason:
                self._simplify()
        text, tool_calls = self._text.split_tools(text, last=finish is not None)
        if finish == "stop" and self._text.called_tools:
            finish = self.finish = "tool_calls"
        if text or reasoning or tool_calls or finish or logprobs:
            pending, self._pending_tokens = self._pending_tokens, 0
            generation.deltas(Delta(self.index, text, finish, logprobs, tool_calls, pending, reasoning))

    def _shown_logprobs(self, *, last: bool) -> tuple[TokenText, ...]:
        """Tokens wait here while their text is held back, or what the policy hides in it would show beside
        it."""
        if not (last or self._text.settled):
            return ()
        pending, self._pending_logprobs = self._pending_logprobs, []
        return self._text.concealed(pending)

    def confidence(self) -> float:
        return self._text.confidence()
