"""Gateways behind one port: a scrape of any shows all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from opentelemetry import trace as api
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client.parser import text_string_to_metric_families

from services.clock import VirtualClock
from services.request import Usage
from services.telemetry import otel_sdk, siblings
from services.telemetry.gateway import GatewayTelemetry
from services.telemetry.metrics import Metrics, merged
from services.telemetry.names import Metric
from services.telemetry.siblings import Siblings, labelled

COUNTER = Metric("c_total", "counter", "A counter.", ("who",))


def counting(value: float) -> Metrics:
    metrics = Metrics([COUNTER])
    metrics.number(COUNTER, "x").value = value
    return metrics


def test_each_keeps_its_own_count_under_its_name(tmp_path: Path) -> None:
    one, two = Siblings(tmp_path, "1", counting(5).snapshot), Siblings(tmp_path, "2", counting(7).snapshot)
    two.publish()
    (family,) = merged(one.families())
    assert family.metric.labels == ("who", "gateway")
    assert {sample.labels: sample.value for sample in family.samples} == {("x", "1"): 5, ("x", "2"): 7}


def test_our_own_figures_are_never_stale(tmp_path: Path) -> None:
    metrics = counting(1)
    one = Siblings(tmp_path, "1", metrics.snapshot)
    one.publish()
    metrics.number(COUNTER, "x").value = 2
    (families,) = one.families()
    assert families[0].samples[0].value == 2


def test_who_ended_or_talks_nonsense_is_left_out(tmp_path: Path) -> None:
    one, two = Siblings(tmp_path, "1", counting(5).snapshot), Siblings(tmp_path, "2", counting(7).snapshot)
    two.publish()
    written_s = (tmp_path / "2.figures").stat().st_mtime
    assert len(one.families(written_s + siblings.FRESH_S - 1)) == 2
    assert len(one.families(written_s + siblings.FRESH_S + 1)) == 1
    (tmp_path / "3.figures").write_bytes(b"\xff")
    assert len(one.families(written_s)) == 2
    two.close()
    assert len(one.families(written_s)) == 1


def test_a_label_more_changes_nothing_else() -> None:
    before = counting(3).snapshot()
    (family,) = labelled(before, "g")
    assert family.metric.name == before[0].metric.name
    assert family.samples[0].value == 3 and family.samples[0].labels == ("x", "g")


def test_the_folder_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(siblings.tempfile, "gettempdir", lambda: str(tmp_path))
    folder = siblings.shared_folder(8000)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert siblings.shared_folder(8000) == folder
    monkeypatch.setattr(siblings.os, "getuid", lambda: os.geteuid() + 1)
    (tmp_path / f"expertmesh-{os.geteuid() + 1}-8000").mkdir()
    with pytest.raises(PermissionError):
        siblings.shared_folder(8000)


def test_a_gateways_page_shows_its_siblings(tmp_path: Path) -> None:
    other = Metrics([Metric("expertmesh_requests_in_progress", "gauge", "x.")])
    other.number(Metric("expertmesh_requests_in_progress", "gauge", "x.")).value = 3
    Siblings(tmp_path, "other", other.snapshot).publish()
    telemetry = GatewayTelemetry(VirtualClock(1.0), shared=tmp_path)
    trace = telemetry.begin("r", "http")
    page = {
        (sample.name, sample.labels.get("gateway")): sample.value
        for family in text_string_to_metric_families(telemetry.render().decode())
        for sample in family.samples
    }
    assert page[("expertmesh_requests_in_progress", "other")] == 3
    assert page[("expertmesh_requests_in_progress", str(os.getpid()))] == 1
    assert not any(name.startswith("process_") for name, _ in page)
    trace.completed(Usage(1, 1))
    trace.end()
    telemetry.close()


def test_an_exporter_is_set_only_where_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    monkeypatch.setattr(api, "set_tracer_provider", made.append)
    assert not otel_sdk.setup({})
    assert not otel_sdk.setup(
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "true"}
    )
    assert made == []
    assert otel_sdk.setup({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"})
    (provider,) = made
    assert isinstance(provider, TracerProvider)
    provider.shutdown()


def test_a_missing_sdk_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def absent(protocol: str, service: str) -> object:
        raise ModuleNotFoundError("no", name="opentelemetry.sdk")

    monkeypatch.setattr(otel_sdk, "_provider", absent)
    assert not otel_sdk.setup({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"})
    assert "opentelemetry.sdk is not installed" in caplog.text
