"""A gateway's telemetry from begin to page, with and without an OpenTelemetry SDK."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry import trace as api
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families

from services.clock import VirtualClock
from services.errors import EngineLost, RequestError
from services.outcome import Reason
from services.request import InferenceRequest, SamplingParams, Usage
from services.telemetry import names
from services.telemetry.gateway import GatewayTelemetry
from services.telemetry.trace import RequestTrace

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def work() -> Any:
    request = InferenceRequest("chat", "m", SamplingParams(16))
    principal = SimpleNamespace(tenant="acme", key_id="k")
    return SimpleNamespace(principal=principal, request=request, band="vip", prompt_tokens=12)


def answer(trace: RequestTrace, clock: VirtualClock) -> None:
    trace.admitted(work())
    trace.looked_up("miss")
    clock.advance(0.2)
    trace.leased(0.2)
    for _ in range(3):
        trace.tokens(1, clock.advance(0.04))
    trace.migrated("lost")
    trace.completed(Usage(12, 3, 4), (0.75,))
    trace.end()


def read(telemetry: GatewayTelemetry) -> dict[str, float]:
    """Sums over all labels, by sample name."""
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families(telemetry.render().decode()):
        for sample in family.samples:
            sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
    return sums


def test_an_answer_shows_in_every_family() -> None:
    clock = VirtualClock(10.0)
    telemetry = GatewayTelemetry(clock)
    trace = telemetry.begin("req-1", "http")
    assert read(telemetry)["expertmesh_requests_in_progress"] == 1
    answer(trace, clock)
    page = read(telemetry)
    assert page["expertmesh_requests_in_progress"] == 0
    assert page["expertmesh_requests_total"] == 1
    assert page["expertmesh_ttft_seconds_sum"] == pytest.approx(0.24)
    assert page["expertmesh_itl_seconds_count"] == 2
    assert page["expertmesh_itl_seconds_sum"] == pytest.approx(0.08)
    assert page["expertmesh_queue_wait_seconds_sum"] == pytest.approx(0.2)
    assert page["expertmesh_e2e_seconds_count"] == 1
    assert page["expertmesh_tokens_total"] == 12 + 3 + 4
    assert page["expertmesh_response_cache_total"] == page["expertmesh_migrations_total"] == 1
    assert page["expertmesh_confidence_ratio_count"] == 1


def test_gaps_are_counted_while_the_stream_goes_on() -> None:
    """Or a page that looks every two seconds says "0 tokens/s" until a long answer is over."""
    clock = VirtualClock(10.0)
    telemetry = GatewayTelemetry(clock)
    trace = telemetry.begin("req-1", "http")
    trace.admitted(work())
    for _ in range(3):
        trace.tokens(1, clock.advance(0.04))
    assert read(telemetry)["expertmesh_itl_seconds_count"] == 2
    trace.tokens(1, clock.advance(0.04))
    assert read(telemetry)["expertmesh_itl_seconds_count"] == 3
    trace.end()
    page = read(telemetry)
    assert page["expertmesh_itl_seconds_count"] == 3
    assert page["expertmesh_itl_seconds_sum"] == pytest.approx(0.12)


def test_a_refused_request_counts_and_nothing_else_does() -> None:
    telemetry = GatewayTelemetry(VirtualClock(1.0))
    trace = telemetry.begin("req-1", "grpc")
    trace.failed(RequestError(Reason.INVALID_JSON, "x"))
    trace.end()
    page = telemetry.render().decode()
    labels = 'kind="",model="default",outcome="rejected",protocol="grpc",reason="invalid_json"'
    assert f"expertmesh_requests_total{{{labels}}} 1.0" in page
    assert "expertmesh_e2e_seconds_count" not in page


def test_a_silent_trace_leaves_nothing() -> None:
    clock = VirtualClock(1.0)
    telemetry = GatewayTelemetry(clock)
    answer(telemetry.silent(), clock)
    assert "expertmesh_requests_total" not in read(telemetry)


def test_the_request_log_gets_one_line_each(tmp_path: Path) -> None:
    clock, path = VirtualClock(1.0), tmp_path / "requests.jsonl"
    telemetry = GatewayTelemetry(clock, str(path))
    for number in range(3):
        answer(telemetry.begin(f"req-{number}", "http"), clock)
    telemetry.close()
    written = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["request_id"] for line in written] == ["req-0", "req-1", "req-2"]
    assert {"prompt_length", "response_time", "queue_wait", "ttft", "cache", "migrations"} <= written[
        0
    ].keys()


def test_an_exporters_bug_does_not_reach_the_pipeline() -> None:
    telemetry = GatewayTelemetry(VirtualClock(1.0))
    trace = telemetry.begin("req-1", "http")
    trace.span = SimpleNamespace(finish=lambda _: 1 / 0)  # type: ignore[assignment]  # a broken exporter
    trace.end()
    assert read(telemetry)["expertmesh_requests_total"] == 1


def test_without_an_sdk_there_is_no_span() -> None:
    assert GatewayTelemetry(VirtualClock()).begin("r", "http", TRACEPARENT).span is None


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(api, "get_tracer_provider", lambda: provider)
    yield exporter
    provider.shutdown()


def test_spans_have_the_clients_trace_and_a_child_per_step(exported: InMemorySpanExporter) -> None:
    clock = VirtualClock(10.0)
    trace = GatewayTelemetry(clock).begin("req-1", "http", TRACEPARENT)
    assert trace.span is not None and trace.span.trace_id == "0af7651916cd43dd8448eb211c80319c"
    assert trace.span.traceparent.startswith("00-0af7651916cd43dd8448eb211c80319c-")
    answer(trace, clock)
    spans: dict[str, ReadableSpan] = {span.name: span for span in exported.get_finished_spans()}
    root = spans.pop(names.Span.REQUEST)
    assert root.parent is not None and f"{root.parent.span_id:016x}" == "b7ad6b7169203331"
    assert set(spans) == {"admit", "look_up", "acquire", "prefill", "decode", "finish"}
    parents = {span.parent.span_id for span in spans.values() if span.parent is not None}
    assert root.context is not None and parents == {root.context.span_id}
    decode = spans["decode"]
    assert decode.start_time is not None and decode.end_time is not None
    assert (decode.end_time - decode.start_time) / 1e9 == pytest.approx(0.08, abs=1e-5)
    assert root.attributes is not None
    assert root.attributes["gen_ai.usage.output_tokens"] == 3
    assert root.attributes["expertmesh.outcome"] == "completed"


def test_failures_mark_the_span(exported: InMemorySpanExporter) -> None:
    trace = GatewayTelemetry(VirtualClock(1.0)).begin("req-1", "http", "garbage")
    trace.failed(EngineLost("gone"))
    trace.end()
    (root,) = exported.get_finished_spans()
    assert root.parent is None
    assert root.attributes is not None and root.attributes["error.type"] == "engine_lost"
    assert root.status.status_code is api.StatusCode.ERROR
