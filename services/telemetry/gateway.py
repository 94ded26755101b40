"""A gateway's telemetry: begins a trace per request, and at its end turns it into metrics, a log line and
spans.

Rules: the shell around trace.py; knows no pipeline. Per request about 10 µs, per token what
RequestTrace.tokens costs. Nothing here can fail a request.
"""

from __future__ import annotations

import asyncio
import logging
import os
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from ..clock import Clock
from . import names, otel_sdk
from .logs import LineWriter, request_line
from .metrics import FamilySample, Metrics, Number, merged
from .names import Step
from .otel import Tracer
from .prometheus import PrometheusPage
from .queue_watch import QueueWatch
from .siblings import Siblings
from .trace import RequestTrace

log = logging.getLogger(__name__)
DEFAULT_MODEL = "default"
"""The label of requests that named no model, or were refused before it was known to be ours."""

MAX_SERIES = 4096
"""Kinds of requests (model, band, tenant, shape, protocol) whose families are kept at hand."""
_STEP_BOUNDS_S = tuple(names.STEP.bounds)


class GatewayTelemetry:
    """One per gateway process. `request_log` is a file, "-" for standard error, or "" for no lines; `shared`
    is the folder where gateways behind the same port keep their figures (siblings.py), None for a gateway
    alone."""

    def __init__(self, clock: Clock, request_log: str = "", shared: Path | None = None) -> None:
        self._clock = clock
        otel_sdk.setup()
        self._tracer = Tracer(clock)
        self.metrics = Metrics(names.GATEWAY_METRICS)
        self.writer = LineWriter(request_log) if request_log else None
        self._page = PrometheusPage(self._snapshot, of_process=shared is None)
        self._siblings = Siblings(shared, f"{os.getpid()}", self._own) if shared is not None else None
        self._fresh: list[Callable[[], None]] = []
        if self._siblings is not None:
            self._siblings.start()
        self._more: list[QueueWatch] = []
        self.settle: Callable[[RequestTrace], None] | None = None
        """Told of every request that has ended, once."""
        self._in_progress = self.metrics.number(names.IN_PROGRESS)
        self._series: dict[tuple[str, ...], _Series] = {}
        self._verdicts: dict[str, Number] = {}
        self._steps = {step: self.metrics.histogram(names.STEP, step.value) for step in Step}

    def begin(self, request_id: str, protocol: str, traceparent: str = "") -> RequestTrace:
        """A request arrived. Its `end` must be called, whatever happens."""
        self._in_progress.value += 1
        span = self._tracer.begin(traceparent)
        return RequestTrace(
            self._clock, request_id, protocol, emit=self._ended, span=span, gaps_of=self._gaps_of
        )

    def _gaps_of(self, model: str) -> list[int]:
        return self.metrics.histogram(names.ITL, model or DEFAULT_MODEL).counts

    def silent(self) -> RequestTrace:
        """A trace that leaves no trace: for requests of our own."""
        return RequestTrace(self._clock, "", "")

    def add(self, watch: QueueWatch) -> None:
        """Show another deployment's figures on this page too."""
        self._more.append(watch)

    async def refresh(self) -> None:
        """Before `render`: what others know, as far as they say it in time."""
        await asyncio.gather(*(watch.refresh() for watch in self._more))

    def fill(self, bring_up_to_date: Callable[[], None]) -> None:
        """Called whenever our own figures are read: for those that are counted elsewhere (cache_metrics.py)."""
        self._fresh.append(bring_up_to_date)

    def render(self) -> bytes:
        """The page for `GET /metrics`."""
        return self._page.render()

    def close(self) -> None:
        """Write what is left; take our figures away from siblings."""
        if self._siblings is not None:
            self._siblings.close()
        if self.writer is not None:
            self.writer.close()

    def _snapshot(self) -> Iterable[FamilySample]:
        if self.writer is not None:
            self.metrics.number(names.LOG_DROPPED).value = self.writer.dropped
        ours = [self._own()] if self._siblings is None else self._siblings.families()
        return merged([*ours, *(tuple(watch.families()) for watch in self._more)])

    def _own(self) -> Sequence[FamilySample]:
        for bring_up_to_date in self._fresh:
            bring_up_to_date()
        return self.metrics.snapshot()

    def _ended(self, trace: RequestTrace) -> None:
        self._in_progress.value -= 1
        try:
            if self.settle is not None and trace.reserved is not None:
                self.settle(trace)
            self._count(trace)
            if self.writer is not None:
                # Made here: in the writer's thread a burst of lines kept the interpreter from the tokens for 4 ms.
                self.writer.write(request_line(trace, self._clock.wall_s()))
            if trace.span is not None:
                trace.span.finish(trace)
        except Exception:  # an exporter's bug must not become the client's
            log.exception("telemetry of %s failed", trace.request_id)

    def _count(self, trace: RequestTrace) -> None:
        key = (trace.model, trace.band, trace.tenant, trace.kind, trace.protocol)
        series = self._series.get(key)
        if series is None:
            if len(self._series) >= MAX_SERIES:
                self._series.clear()
            series = self._series[key] = _Series(self.metrics, *key)
        steps, since_s = self._steps, trace.begun_s
        for step, at_s in trace.marks:
            if at_s >= since_s and at_s:
                taken_s, since_s = at_s - since_s, at_s
                histogram = steps[step]
                histogram.counts[bisect_left(_STEP_BOUNDS_S, taken_s)] += 1
                histogram.total += taken_s
        if trace.cache:
            verdict = self._verdicts.get(trace.cache)
            if verdict is None:
                verdict = self.metrics.number(names.RESPONSE_CACHE, trace.cache)
                self._verdicts[trace.cache] = verdict
            verdict.value += 1
        series.add(trace)
        if trace.journal:
            self.metrics.number(names.JOURNAL, trace.journal).value += 1
        for why in trace.migrations or ():
            self.metrics.number(names.MIGRATIONS, why).value += 1
        for score in trace.confidence:
            self.metrics.histogram(names.CONFIDENCE, trace.model or DEFAULT_MODEL).observe(score)


class _Series:
    """The families of one kind of request, bound at their first use: looking each up by its labels was a fifth of what
    the telemetry of a request cost."""

    __slots__ = ("_completed", "_labels", "_metrics", "_times", "_tokens")

    def __init__(
        self, metrics: Metrics, model: str, band: str, tenant: str, kind: str, protocol: str
    ) -> None:
        self._metrics = metrics
        self._labels = (model or DEFAULT_MODEL, band, tenant, kind, protocol)
        self._completed: Number | None = None
        self._times: _Times | None = None
        self._tokens: tuple[Number, Number] | None = None

    def add(self, trace: RequestTrace) -> None:
        """A request that has ended."""
        model, band, tenant, kind, protocol = self._labels
        metrics, completed = self._metrics, trace.error is None
        if completed:
            if self._completed is None:
                self._completed = metrics.number(names.REQUESTS, model, kind, protocol, "completed", "none")
            self._completed.value += 1
        else:
            outcome = trace.outcome.value
            metrics.number(names.REQUESTS, model, kind, protocol, outcome, trace.reason).value += 1
        if trace.first_s or trace.queue_wait_s or completed:
            if self._times is None:
                self._times = _Times(metrics, model, band)
            self._times.add(trace, completed=completed)
        if (usage := trace.usage) is not None:
            if self._tokens is None:
                self._tokens = (
                    metrics.number(names.TOKENS, model, tenant, "prompt"),
                    metrics.number(names.TOKENS, model, tenant, "completion"),
                )
            prompt, completion = self._tokens
            prompt.value += usage.prompt_tokens
            completion.value += usage.completion_tokens
            if usage.cached_tokens:
                metrics.number(names.TOKENS, model, tenant, "cached").value += usage.cached_tokens


class _Times:
    """The histograms of one model and band, bound."""

    __slots__ = ("_e2e", "_itl", "_ttft", "_wait")

    def __init__(self, metrics: Metrics, model: str, band: str) -> None:
        self._ttft = metrics.histogram(names.TTFT, model, band)
        self._itl = metrics.histogram(names.ITL, model)
        self._wait = metrics.histogram(names.QUEUE_WAIT, model, band)
        self._e2e = metrics.histogram(names.E2E, model, band)

    def add(self, trace: RequestTrace, *, completed: bool) -> None:
        if trace.first_s:
            self._ttft.observe(trace.ttft_s)
        if trace.itl_counts is not None:
            self._itl.total += trace.itl_total_s  # the gaps themselves were counted as they came
        if trace.queue_wait_s:
            self._wait.observe(trace.queue_wait_s)
        if completed:
            self._e2e.observe(trace.response_time_s)
