"""OpenTelemetry spans: one per request with a child per step, by the API only; silent until an SDK is set.

Rules: the one file that knows opentelemetry. Without an SDK a request costs a look at the clock. With
one, the root span begins with the request (so that its context can be passed on) and the children are written
at the end, from the trace's timeline: nothing is done between two tokens.
"""

from __future__ import annotations

from opentelemetry import trace as api
from opentelemetry.trace import ProxyTracerProvider, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from ..clock import Clock
from ..outcome import Outcome
from .names import Span as Name
from .trace import RequestTrace

_PROPAGATOR = TraceContextTextMapPropagator()
_SCOPE = "expertmesh"


ASK_AGAIN_S = 1.0
"""Who asks for the provider reads the environment each time, which costs more than the rest of a silent request."""


class Tracer:
    """Begins spans. One per process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._silent_until_s = 0.0

    def begin(self, traceparent: str = "") -> OtelSpan | None:
        """A span for a request that begins now, a child of the client's if it sent a `traceparent`; None
        while nobody records."""
        if self._silent_until_s and self._clock.now_s() < self._silent_until_s:
            return None
        if isinstance(api.get_tracer_provider(), ProxyTracerProvider):
            self._silent_until_s = self._clock.now_s() + ASK_AGAIN_S
            return None
        parent = _PROPAGATOR.extract({"traceparent": traceparent}) if traceparent else None
        span = api.get_tracer(_SCOPE).start_span(Name.REQUEST, context=parent, kind=SpanKind.SERVER)
        return OtelSpan(span, self._clock) if span.is_recording() else None


class OtelSpan:
    """RequestSpan over a recording span."""

    def __init__(self, span: api.Span, clock: Clock) -> None:
        self._span = span
        self._wall_offset_s = clock.wall_s() - clock.now_s()
        context = span.get_span_context()
        self.trace_id = f"{context.trace_id:032x}"
        self.traceparent = f"00-{self.trace_id}-{context.span_id:016x}-{int(context.trace_flags):02x}"

    def finish(self, trace: RequestTrace) -> None:
        """Write the attributes and the children, and end it."""
        tracer, parent = api.get_tracer(_SCOPE), api.set_span_in_context(self._span)
        for step, from_s, to_s in trace.timeline:
            child = tracer.start_span(step.value, context=parent, start_time=self._nanoseconds(from_s))
            child.end(self._nanoseconds(to_s))
        self._span.set_attributes(_attributes(trace))
        if trace.error is not None:
            self._span.set_attribute(Name.ERROR_TYPE, trace.reason)
            if trace.outcome is Outcome.FAILED:
                self._span.set_status(Status(StatusCode.ERROR, trace.reason))
        self._span.end(self._nanoseconds(trace.ended_s))

    def _nanoseconds(self, time_s: float) -> int:
        return int((time_s + self._wall_offset_s) * 1e9)


def _attributes(trace: RequestTrace) -> dict[str, str | int | float]:
    attributes: dict[str, str | int | float] = {
        Name.REQUEST_ID: trace.request_id,
        Name.OUTCOME: trace.outcome.value,
        Name.MODEL: trace.model,
        Name.OPERATION: "chat" if trace.kind == "chat" else "text_completion",
        Name.TENANT: trace.tenant,
        Name.BAND: trace.band,
        Name.CACHE: trace.cache,
        Name.MAX_TOKENS: trace.max_tokens,
        Name.INPUT_TOKENS: trace.prompt_tokens,
        Name.OUTPUT_TOKENS: trace.usage.completion_tokens if trace.usage is not None else trace.num_tokens,
        Name.MIGRATIONS: len(trace.migrations or ()),
    }
    if trace.first_s:
        attributes[Name.TTFT] = trace.ttft_s
    return attributes
