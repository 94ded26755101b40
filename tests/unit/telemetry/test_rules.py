"""Alert rules and dashboard use metrics that exist, with labels that they have; the runbook knows every
alert."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from services.telemetry.names import ALL_METRICS, RAY_METRICS, Metric
from tests.architecture.sources import ROOT

RULES = ROOT / "infra" / "prometheus" / "expertmesh.rules.yml"
DASHBOARD = ROOT / "infra" / "grafana" / "expertmesh.json"
RUNBOOK = ROOT / "docs" / "runbooks" / "alerts.md"
SEVERITIES = {"critical", "warning", "info"}
FOREIGN_LABELS = {"le", "instance", "job", "GpuIndex"}

METRICS: dict[str, Metric] = {
    name: metric
    for metric in ALL_METRICS
    for name in (
        [f"{metric.name}_{part}" for part in ("bucket", "sum", "count")]
        if metric.kind == "histogram"
        else [metric.name]
    )
}


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def queries() -> Iterator[str]:
    yield from (rule["expr"] for rule in rules())
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))


RECORDED = {rule["record"] for rule in rules() if "record" in rule}


@pytest.mark.parametrize("query", sorted(set(queries())))
def test_a_query_uses_what_exists(query: str) -> None:
    assert query.count("(") == query.count(")")
    words = set(re.findall(r"\b(?:expertmesh[_:]|ray_)[\w:]+", query))
    assert words or query.startswith("up{")
    assert words <= METRICS.keys() | RECORDED | set(RAY_METRICS)
    known = FOREIGN_LABELS | {label for word in words & METRICS.keys() for label in METRICS[word].labels}
    if not words & RECORDED:
        grouped = re.findall(r"\b(?:by|on|group_left) ?\(([^()]*)\)", query)
        used = {label.strip() for group in grouped for label in group.split(",") if label.strip()}
        used |= {
            label for braces in re.findall(r"\{([^}]*)\}", query) for label in re.findall(r"(\w+) ?=", braces)
        }
        assert used <= known, query


def test_only_counters_and_histograms_are_rated() -> None:
    for query in queries():
        for name in re.findall(r"(?:rate|increase)\((\w+)", query):
            assert METRICS[name].kind in ("counter", "histogram"), name


def test_every_alert_has_a_level_a_sentence_and_a_page() -> None:
    headings = re.findall(r"^## (\w+)", RUNBOOK.read_text(), re.MULTILINE)
    for alert in alerts():
        assert alert["labels"]["severity"] in SEVERITIES
        assert alert["annotations"]["summary"]
        assert alert["annotations"]["runbook"] == f"docs/runbooks/alerts.md#{alert['alert'].lower()}"
    assert headings == [alert["alert"] for alert in alerts()]
    assert {alert["labels"]["severity"] for alert in alerts()} == SEVERITIES


def test_the_bounds_that_were_promised_are_there() -> None:
    wanted = {
        "MeshResponseSlow": "mean_rate5m > 1",
        "MeshGpuMemoryFull": "gpu_memory:ratio > 0.9",
        "MeshGpuMemoryHigh": "gpu_memory:ratio > 0.85",
        "MeshCompletionLow": "completion:ratio_rate5m < 0.95",
    }
    found = {alert["alert"]: alert for alert in alerts()}
    for name, bound in wanted.items():
        assert bound in found[name]["expr"]
    assert found["MeshGpuMemoryFull"]["for"] == "5m"
    assert any("p99" in alert["expr"] for alert in alerts())


def test_every_metric_is_on_the_dashboard_and_the_file_is_fresh() -> None:
    text = DASHBOARD.read_text()
    assert [metric.name for metric in ALL_METRICS if metric.name not in text] == []
    script = ROOT / "infra" / "grafana" / "dashboard.py"
    made = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    assert made.stdout == text


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + i, place["y"] + j) for i in range(place["w"]) for j in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
