"""RequestTrace: figures from times, outcomes from errors, the timeline."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from services.clock import VirtualClock
from services.errors import ClientGone, EngineLost, MeshError, OverloadError, RequestError
from services.outcome import Outcome, Reason
from services.request import InferenceRequest, SamplingParams, Usage
from services.telemetry.names import ITL_BOUNDS_S, Step
from services.telemetry.trace import RequestTrace

REQUEST = InferenceRequest("chat", "m", SamplingParams(16), stream=True, person="person-123456", n=2)


def work(**changes: Any) -> Any:
    principal = SimpleNamespace(tenant="acme", key_id="key-1234567890")
    return SimpleNamespace(
        **{"principal": principal, "request": REQUEST, "band": "vip", "prompt_tokens": 12} | changes
    )


class Stage:
    """A trace on a clock that the test moves."""

    def __init__(self) -> None:
        self.clock = VirtualClock(100.0)
        self.ended: list[RequestTrace] = []
        self.trace = RequestTrace(self.clock, "req-1", "http", emit=self.ended.append)

    def after(self, seconds: float) -> RequestTrace:
        self.clock.advance(seconds)
        return self.trace

    def token(self, after_s: float, num_tokens: int = 1, choice: int = 0) -> None:
        self.trace.tokens(num_tokens, self.clock.advance(after_s), choice)


def test_figures_of_a_streamed_answer() -> None:
    stage = Stage()
    stage.after(0.5).admitted(work())
    stage.after(0.25).leased(0.2)
    for gap in (0.25, 0.02, 0.02, 0.5):
        stage.token(gap)
    stage.trace.completed(Usage(12, 4, 3), (0.5,))
    stage.after(0.125).end()
    trace = stage.trace
    assert stage.ended == [trace]
    assert (trace.ttft_s, trace.queue_wait_s, trace.num_tokens) == (1.0, 0.2, 4)
    assert trace.itl_counts is not None and sum(trace.itl_counts) == 3
    assert trace.itl_max_s == pytest.approx(0.5) and trace.itl_total_s == pytest.approx(0.54)
    assert trace.response_time_s == pytest.approx(1.665)
    assert (trace.outcome, trace.reason) == (Outcome.COMPLETED, "none")
    assert (trace.tenant, trace.model, trace.band, trace.num_choices) == ("acme", "m", "vip", 2)


def test_gaps_are_between_tokens_of_one_choice() -> None:
    stage = Stage()
    for choice in (0, 1, 2, 0, 1, 2):
        stage.token(0.01, choice=choice)
    counts = stage.trace.itl_counts
    assert counts is not None and sum(counts) == 3
    assert (
        counts[ITL_BOUNDS_S.index(0.03)] + counts[ITL_BOUNDS_S.index(0.05)] == 3
    )  # 0.03, give or take a rounding


def test_tokens_that_come_together_share_the_wait_for_them() -> None:
    stage = Stage()
    stage.token(0.1, 4)
    stage.token(0.4, 4)
    counts = stage.trace.itl_counts
    assert counts is not None and sum(counts) == 7
    assert counts[0] == 3  # of the first four: nobody waited between them
    assert counts[ITL_BOUNDS_S.index(0.1)] + counts[ITL_BOUNDS_S.index(0.1) + 1] == 4


def test_end_counts_once() -> None:
    stage = Stage()
    stage.trace.end()
    stage.trace.end()
    assert len(stage.ended) == 1


@pytest.mark.parametrize(
    ("error", "leased", "outcome"),
    [
        (RequestError(Reason.INVALID_FIELD, "x"), False, Outcome.REJECTED),
        (OverloadError(Reason.QUEUE_FULL, "x"), False, Outcome.REJECTED),
        (OverloadError(Reason.DEADLINE_EXCEEDED, "x"), False, Outcome.EVICTED),
        (OverloadError(Reason.SHED, "x"), True, Outcome.EVICTED),
        (ClientGone(Reason.CLIENT_CANCELLED, "x"), True, Outcome.CANCELLED),
        (ClientGone(Reason.SLOW_READER, "x"), True, Outcome.CANCELLED),
        (EngineLost("x"), True, Outcome.FAILED),
        (MeshError(Reason.INTERNAL, "x"), False, Outcome.FAILED),
    ],
)
def test_outcomes(error: MeshError, leased: bool, outcome: Outcome) -> None:
    stage = Stage()
    if leased:
        stage.trace.leased(0.0)
    stage.trace.failed(error)
    stage.trace.failed(MeshError(Reason.INTERNAL, "a later one does not count"))
    stage.trace.end()
    assert (stage.trace.outcome, stage.trace.reason) == (outcome, error.reason.value)


def test_every_reason_has_an_outcome() -> None:
    for reason in Reason:
        trace = Stage().trace
        trace.failed(MeshError(reason, "x"))
        assert trace.outcome in Outcome and trace.outcome is not Outcome.COMPLETED


def test_the_timeline_has_no_gaps_and_ends_with_the_request() -> None:
    stage = Stage()
    stage.after(0.125).identified(work().principal)
    stage.after(0.125).step("tokenized")
    stage.after(0.125).step("nothing known")
    stage.trace.admitted(work())
    stage.after(0.125).looked_up("miss")
    stage.after(0.5).leased(0.5)
    stage.token(1.0)
    stage.token(1.0)
    stage.trace.completed(Usage(1, 2))
    stage.after(0.25).end()
    timeline = stage.trace.timeline
    assert [step for step, _, _ in timeline] == [
        Step.AUTHENTICATE, Step.TOKENIZE, Step.ADMIT, Step.LOOK_UP, Step.ACQUIRE, Step.PREFILL, Step.DECODE,
        Step.FINISH,
    ]  # fmt: skip
    assert timeline[0][1] == 100.0 and timeline[-1][2] == stage.trace.ended_s
    assert all(left[2] == right[1] for left, right in pairwise(timeline))
    assert {step: to - since for step, since, to in timeline}[Step.ACQUIRE] == 0.5


def test_a_refused_request_has_the_steps_it_took() -> None:
    stage = Stage()
    stage.after(0.5).step("authenticated")
    stage.after(0.5).failed(RequestError(Reason.INVALID_FIELD, "x"))
    stage.trace.end()
    assert [step for step, _, _ in stage.trace.timeline] == [Step.AUTHENTICATE]


def test_migrations_are_remembered() -> None:
    trace = Stage().trace
    trace.migrated("lost")
    trace.migrated("preempted")
    assert trace.migrations == ["lost", "preempted"]
