"""What happened to one request, noted as it happens, worked out once at the end.

Rules: pure but for the clock port; emits nothing itself: `end` hands the trace to whoever made it
(gateway.py), once. Every method may be called in any order and none raises; `tokens` is called once per frame
and choice and costs a comparison, a bisection and two additions.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import Protocol

from ..clock import Clock
from ..errors import MeshError
from ..outcome import Outcome, Reason
from ..request import InferenceRequest, Usage
from .names import ITL_BOUNDS_S, Step

_CANCELLED = frozenset((Reason.CLIENT_CANCELLED, Reason.SLOW_READER))
_FAILED = frozenset((Reason.INTERNAL, Reason.ENGINE_LOST, Reason.POISON_REQUEST))
_NUM_GAPS = len(ITL_BOUNDS_S) + 1


class Asker(Protocol):
    """Who asks, as far as telemetry cares (gateway.identity.Principal is one)."""

    @property
    def tenant(self) -> str: ...
    @property
    def key_id(self) -> str: ...


class Admitted(Protocol):
    """An admitted request, as far as telemetry cares (gateway.admission.Work is one)."""

    @property
    def principal(self) -> Asker: ...
    @property
    def request(self) -> InferenceRequest: ...
    @property
    def band(self) -> str: ...
    @property
    def prompt_tokens(self) -> int: ...


class RequestSpan(Protocol):
    """The request's span, when somebody records spans (otel.py)."""

    trace_id: str
    traceparent: str

    def finish(self, trace: RequestTrace) -> None: ...


class RequestTrace:
    """One request from its first byte to its last. Times are the process clock's; zero means: did not
    happen."""

    __slots__ = (
        "_clock", "_emit", "_gaps_of", "_last_s", "_others", "band", "begun_s", "cache", "confidence", "cost",
        "ended_s", "error", "first_s", "held", "itl_counts", "itl_max_s", "itl_total_s", "journal", "key_id", "kind",
        "left",
        "max_tokens", "migrations", "model", "num_choices", "num_tokens", "person", "prompt_tokens", "protocol",
        "queue_wait_s", "request_id", "reserved", "span", "steps", "stream", "tenant", "usage",
    )  # fmt: skip

    def __init__(
        self,
        clock: Clock,
        request_id: str,
        protocol: str,
        *,
        emit: Callable[[RequestTrace], None] | None = None,
        span: RequestSpan | None = None,
        gaps_of: Callable[[str], list[int]] | None = None,
    ) -> None:
        self._clock, self._emit, self.span, self._gaps_of = clock, emit, span, gaps_of
        self.request_id, self.protocol = request_id, protocol
        self.begun_s = clock.now_s()
        self.ended_s = self.first_s = self._last_s = 0.0
        self._others: dict[int, float] | None = None  # last token of choices other than the first
        self.itl_counts: list[int] | None = None
        self.itl_max_s = self.itl_total_s = self.queue_wait_s = self.cost = 0.0
        self.num_tokens = self.prompt_tokens = self.max_tokens = self.num_choices = 0
        self.steps: list[tuple[Step, float]] = []
        self.migrations: list[str] | None = None
        self.tenant = self.key_id = self.person = self.model = self.kind = self.band = self.cache = ""
        self.stream = self.held = False
        self.journal = self.left = ""  # left: why it was sent to the remote server
        self.reserved: object = None  # what the request took of its key's allowance (gateway/quotas.py)
        self.usage: Usage | None = None
        self.confidence: tuple[float, ...] = ()
        self.error: MeshError | None = None

    # as it happens -----------------------------------------------------------------------------------------

    def step(self, name: Step | str) -> None:
        """This step is done now. Names that are no Step are ignored."""
        known = _STEPS.get(name)
        if known is not None:
            self.steps.append((known, self._clock.now_s()))

    def identified(self, principal: Asker) -> None:
        """Known who asks."""
        self.tenant, self.key_id = principal.tenant, principal.key_id
        self.steps.append((_AUTHENTICATE, self._clock.now_s()))

    def admitted(self, work: Admitted) -> None:
        """Valid, tokenised, within limits."""
        request, principal = work.request, work.principal
        self.tenant, self.key_id = principal.tenant, principal.key_id
        self.model, self.kind, self.stream = request.model, request.kind, request.stream
        self.person, self.num_choices = request.person, request.num_choices
        self.max_tokens = request.sampling.max_tokens
        self.band, self.prompt_tokens = work.band, work.prompt_tokens
        self.steps.append((_ADMIT, self._clock.now_s()))

    def looked_up(self, verdict: str) -> None:
        """The response cache said hit, miss or bypass."""
        self.cache = verdict
        self.steps.append((_LOOK_UP, self._clock.now_s()))

    def leased(self, queue_wait_s: float) -> None:
        """A choice got its first lease after waiting that long; of several choices the longest wait
        counts."""
        if not self.queue_wait_s:
            self.steps.append((_ACQUIRE, self._clock.now_s()))
        self.queue_wait_s = max(self.queue_wait_s, queue_wait_s, 1e-9)

    def migrated(self, why: str) -> None:
        """A choice asks for another lease: its engine was "lost", or it was "preempted"."""
        self.migrations = [*(self.migrations or ()), why]

    def paid(self, cost: float) -> None:
        """A lease ended that cost so much, in the queue's currency."""
        self.cost += cost

    def tokens(self, num_tokens: int, now_s: float, choice: int = 0) -> None:
        """Hot path: a frame of a choice arrived with this many tokens."""
        self.num_tokens += num_tokens
        counts = self.itl_counts
        if counts is None:
            self.itl_counts = counts = self.gaps()
            self.first_s = now_s
        if choice:
            others = self._others = self._others if self._others is not None else {}
            last_s = others.get(choice, 0.0)
            others[choice] = now_s
        else:
            last_s, self._last_s = self._last_s, now_s
        if last_s and num_tokens:
            gap_s = (
                now_s - last_s
            ) / num_tokens  # several came together: each counts as its share of the wait
            counts[bisect_left(ITL_BOUNDS_S, gap_s)] += num_tokens
            self.itl_total_s += now_s - last_s
            if gap_s > self.itl_max_s:
                self.itl_max_s = gap_s
        elif num_tokens > 1:
            counts[0] += num_tokens - 1

    def gaps(self) -> list[int]:
        """Where gaps between tokens are counted, by ITL_BOUNDS_S, for those who count them themselves and tell the
        rest by `paced`: one list for all requests of a model."""
        if self._gaps_of is not None:
            return self._gaps_of(self.model)
        if self.itl_counts is None:
            self.itl_counts = [0] * _NUM_GAPS
        return self.itl_counts

    def paced(self, num_tokens: int, last_s: float, longest_s: float, choice: int = 0) -> None:
        """So many tokens came since the last word, each alone, the last one at `last_s`; no gap was longer than
        `longest_s`. Their gaps are counted in `gaps`."""
        self.num_tokens += num_tokens
        if choice:
            others = self._others = self._others if self._others is not None else {}
            self.itl_total_s += last_s - others.get(choice, last_s)
            others[choice] = last_s
        else:
            self.itl_total_s += last_s - self._last_s
            self._last_s = last_s
        self.itl_max_s = max(self.itl_max_s, longest_s)

    def completed(self, usage: Usage, confidence: tuple[float, ...] | None = None) -> None:
        """The answer is complete."""
        self.usage, self.confidence = usage, confidence or ()

    def failed(self, error: MeshError) -> None:
        """The request ends with an error; the first one counts."""
        if not self.held:
            self.error = self.error or error

    def end(self) -> None:
        """Nothing more happens. Emits once; not while it is `held`, by an answer that goes on without its call."""
        if not self.ended_s and not self.held:
            self.ended_s = self._clock.now_s()
            if self.error is not None:  # its traceback knows the frame that knows this: see Generation.let_go
                self.error.__traceback__ = self.error.__context__ = None
            if self._emit is not None:
                self._emit(self)

    # worked out --------------------------------------------------------------------------------------------

    @property
    def outcome(self) -> Outcome:
        """How it ended. A failure before any lease is a rejection, unless it is ours."""
        if self.error is None:
            return _COMPLETED
        return outcome_of(self.error, begun=bool(self.queue_wait_s or self.num_tokens))

    @property
    def reason(self) -> str:
        """Why it did not complete; "none" if it did."""
        return self.error.reason.value if self.error is not None else "none"

    @property
    def response_time_s(self) -> float:
        """From the first byte to the end."""
        return self.ended_s - self.begun_s

    @property
    def ttft_s(self) -> float:
        """From the first byte to the first token; 0 without one."""
        return self.first_s - self.begun_s if self.first_s else 0.0

    @property
    def marks(self) -> list[tuple[Step, float]]:
        """(step, when it was done), in order; what did not happen is 0 or before the mark that precedes it."""
        marks = self.steps.copy()
        if self.first_s:
            marks.append((_PREFILL, self.first_s))
            last_s = max(self._last_s, *(self._others or {}).values()) if self._others else self._last_s
            if last_s > self.first_s:
                marks.append((_DECODE, last_s))
        if self.error is None:
            marks.append((_FINISH, self.ended_s))
        return marks

    @property
    def timeline(self) -> list[tuple[Step, float, float]]:
        """(step, from, to) of everything that happened, in order, without gaps."""
        spans: list[tuple[Step, float, float]] = []
        since_s = self.begun_s
        for name, at_s in self.marks:
            if at_s >= since_s and at_s:
                spans.append((name, since_s, at_s))
                since_s = at_s
        return spans


def outcome_of(error: MeshError, *, begun: bool) -> Outcome:
    """Of a request that failed, before or after it had `begun` to run."""
    reason = error.reason
    if reason in _CANCELLED:
        return Outcome.CANCELLED
    if reason in _FAILED:
        return Outcome.FAILED
    return Outcome.EVICTED if begun or reason is Reason.DEADLINE_EXCEEDED else _REJECTED


# Bound once: an enumeration's member costs as much to look up by name as noting it does.
_AUTHENTICATE, _ADMIT, _LOOK_UP, _ACQUIRE = Step.AUTHENTICATE, Step.ADMIT, Step.LOOK_UP, Step.ACQUIRE
_PREFILL, _DECODE, _FINISH = Step.PREFILL, Step.DECODE, Step.FINISH
_COMPLETED, _REJECTED = Outcome.COMPLETED, Outcome.REJECTED
_STEPS: dict[str, Step] = {step.value: step for step in Step} | {
    "authenticated": Step.AUTHENTICATE,
    "tokenized": Step.TOKENIZE,
}
