"""Makes the Grafana dashboard from the metrics' names:

    python infra/grafana/dashboard.py > infra/grafana/expertmesh.json

Panels are lines of a table here, so that a renamed metric is a failing import and not an empty graph.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from services.telemetry import cost_names as c
from services.telemetry import names as n

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
MODEL = '{model=~"$model"}'
WIDTH, HEIGHT, COLUMNS = 8, 7, 3


class Panel(NamedTuple):
    """One graph: (query, legend) pairs."""

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    description: str = ""


def rate(metric: n.Metric, by: str, *, suffix: str = "", only: str = MODEL) -> str:
    return f"sum by ({by}) (rate({metric.name}{suffix}{only}[$__rate_interval]))"


def quantile(metric: n.Metric, share: float, by: str = "") -> str:
    labels = f"{by}, le" if by else "le"
    return f"histogram_quantile({share}, {rate(metric, labels, suffix='_bucket')})"


def quantiles(metric: n.Metric) -> tuple[tuple[str, str], ...]:
    return tuple((quantile(metric, share), f"p{round(share * 100)}") for share in (0.5, 0.95, 0.99))


def top(metric: n.Metric, by: str) -> str:
    """A figure that every gateway shows alike."""
    return f"max by ({by}) ({metric.name}{MODEL})"


def top_rate(metric: n.Metric, by: str) -> str:
    """The same for a counter."""
    return f"max by ({by}) (rate({metric.name}{MODEL}[$__rate_interval]))"


def hourly(metric: n.Metric) -> str:
    """Money per hour by pool."""
    return f"3600 * {top_rate(metric, 'pool, capacity_type, currency')}"


LEGEND, POOL = "{{tenant}} {{band}}", "{{pool}} {{capacity_type}}"


def topk(metric: n.Metric) -> str:
    """The ten greatest of a tenants' figure."""
    return f"topk(10, {top(metric, 'tenant, band')})"


CACHE_SHARES = (
    f"{rate(n.RESPONSE_CACHE, 'verdict', only='')} "
    f"/ scalar(sum(rate({n.RESPONSE_CACHE.name}[$__rate_interval])))"
)

ROWS: dict[str, tuple[Panel, ...]] = {
    "Traffic": (
        Panel("Requests by outcome", "reqps", ((rate(n.REQUESTS, "outcome"), "{{outcome}}"),)),
        Panel("Why requests did not complete", "reqps",
              ((rate(n.REQUESTS, "reason", only='{model=~"$model",reason!="none"}'), "{{reason}}"),)),
        Panel("In progress", "short", ((f"sum ({n.IN_PROGRESS.name})", "requests"),)),
        Panel("Tokens", "short", ((rate(n.TOKENS, "type"), "{{type}}"),), "Per second, when requests complete."),
        Panel("Busiest tenants", "short",
              ((f"topk(10, {rate(n.TOKENS, 'tenant')})", "{{tenant}}"),), "Tokens per second."),
        Panel("Response cache", "percentunit", ((CACHE_SHARES, "{{verdict}}"),)),
    ),
    "Response cache": (
        Panel("Hits by kind", "reqps",
              ((rate(n.CACHE_HITS, "kind", only=""), "{{kind}}"),
               (f"sum (rate({n.CACHE_JOINED.name}[$__rate_interval]))", "shared a generation"))),
        Panel("Saved", "short",
              ((f"sum (rate({n.CACHE_SAVED_TOKENS.name}[$__rate_interval]))", "tokens per second"),
               (f"sum (rate({n.CACHE_SAVED.name}[$__rate_interval]))", "engine slots"))),
        Panel("Questions by meaning", "reqps",
              ((f"sum (rate({n.SEMANTIC_ASKED.name}[$__rate_interval]))", "asked"),
               (f"sum (rate({n.SEMANTIC_LATE.name}[$__rate_interval]))", "found too late"),
               (f"max by (outcome) (rate({n.SEMANTIC_VERIFIED.name}[$__rate_interval]))", "verified {{outcome}}"))),
        Panel("Wrong hits, estimated and at most", "percentunit",
              ((f"max by (tenant_tag, delta) ({n.SEMANTIC_FALSE.name})", "{{tenant_tag}}, asked: {{delta}}"),
               (f"max by (tenant_tag, delta) ({n.SEMANTIC_FALSE_BOUND.name})", "{{tenant_tag}} at most"))),
        Panel("Store", "short",
              ((f"min ({n.CACHE_STORE_UP.name})", "up"),
               (f"max (rate({n.CACHE_STORED.name}[$__rate_interval]))", "kept per second"),
               (f"max (rate({n.CACHE_REFUSED.name}[$__rate_interval]))", "refused per second"),
               (f"max (increase({n.CACHE_POISONED.name}[$__rate_interval]))", "poisoned"),
               (f"max (increase({n.CACHE_PURGES_OWED.name}[$__rate_interval]))", "purges owed"),
               (f"max ({n.SEMANTIC_ENTRIES.name})", "questions kept"))),
        Panel("Sent to the remote server", "reqps", (
            (rate(n.REMOTE, "reason, outcome", only=""), "{{reason}} {{outcome}}"),
            (rate(n.REMOTE_STAYED, "why", only=""), "stayed: {{why}}"),
        ), "Overflow, and what kept it here."),
        Panel("Tokens of remote answers", "ops", ((rate(n.REMOTE_TOKENS, "type", only=""), "{{type}}"),)),
        Panel("Kept responses", "ops", ((rate(n.KEPT, "operation, outcome", only=""), "{{operation}} {{outcome}}"),)),
        Panel("Kept responses, p95", "s",
              ((f"histogram_quantile(0.95, {rate(n.KEPT_SECONDS, 'operation, le', suffix='_bucket', only='')})",
                "{{operation}}"),)),
        Panel("Kept responses, bytes", "Bps", ((rate(n.KEPT_BYTES, "change", only=""), "{{change}}"),)),
    ),
    "Latency": (
        Panel("Time to first token", "s", quantiles(n.TTFT)),
        Panel("Gap between tokens", "s", quantiles(n.ITL)),
        Panel("Whole answer", "s",
              (*quantiles(n.E2E),
               (f"{rate(n.E2E, 'model', suffix='_sum')} / {rate(n.E2E, 'model', suffix='_count')}", "mean"))),
        Panel("First token, p95 by band", "s", ((quantile(n.TTFT, 0.95, "band"), "{{band}}"),)),
        Panel("Time in each step", "s",
              ((f"{rate(n.STEP, 'step', suffix='_sum', only='')} / {rate(n.STEP, 'step', suffix='_count', only='')}",
                "{{step}}"),)),
        Panel("Confidence", "percentunit", ((quantile(n.CONFIDENCE, 0.5), "median"),)),
    ),
    "Queue": (
        Panel("Waiting by band", "short", ((top(n.QUEUE_WAITING, "band"), "{{band}}"),)),
        Panel("Queue wait, p95 by band", "s", ((quantile(n.QUEUE_WAIT, 0.95, "band"), "{{band}}"),)),
        Panel("Oldest by band", "s", ((top(n.QUEUE_OLDEST, "band"), "{{band}}"),)),
        Panel("Running by band", "short",
              ((top(n.QUEUE_RUNNING, "band"), "{{band}}"), (top(n.QUEUE_SLOTS, "model"), "slots"),
               (top(n.QUEUE_BORROWED, "model"), "borrowed"),
               (top(n.QUEUE_RESERVED, "band"), "{{band}} reserved"))),
        Panel("Saturation", "percentunit", ((top(n.QUEUE_SATURATION, "model"), "{{model}}"),)),
        Panel("Granted and preempted", "reqps",
              ((top_rate(n.QUEUE_GRANTED, "band"), "{{band}} granted"),
               (top_rate(n.QUEUE_PREEMPTED, "band"), "{{band}} preempted"),
               (top_rate(n.QUEUE_RESUMED, "band"), "{{band}} resumed"))),
        Panel("Refused by the queue", "reqps",
              ((f"sum by (reason) ({top_rate(n.QUEUE_REFUSED, 'model, band, reason')})", "{{reason}}"),)),
        Panel("Waiting tokens", "short", ((top(n.QUEUE_WAITING_TOKENS, "band"), "{{band}}"),)),
    ),
    "Tenants in the queue": (
        Panel("Waiting", "short", ((topk(n.TENANT_WAITING), LEGEND),), "The ten with the longest lines."),
        Panel("Running", "short", ((topk(n.TENANT_RUNNING), LEGEND),)),
        Panel("Without a break in the queue", "s", ((topk(n.TENANT_BACKLOG_AGE), LEGEND),)),
        Panel("Mean wait", "s",
              ((f"{top_rate(n.TENANT_WAIT, 'tenant, band')} / {top_rate(n.TENANT_GRANTED, 'tenant, band')}", LEGEND),)),
        Panel("Preempted", "reqps", ((f"topk(10, {top_rate(n.TENANT_PREEMPTED, 'tenant, band')})", LEGEND),)),
        Panel("Refused", "reqps",
              ((f"topk(10, {top_rate(n.TENANT_REFUSED, 'tenant, band, reason')})", LEGEND + " {{reason}}"),)),
    ),
    "Cost": (
        Panel("Paid, used and on demand, per hour", "short",
              ((hourly(c.POOL_PAID), POOL + " paid"), (hourly(c.POOL_USED), POOL + " used"),
               (hourly(c.POOL_LISTED), POOL + " on demand")), "In the currency of EXPERTMESH_PRICES."),
        Panel("Accelerators", "short",
              ((top_rate(c.POOL_ACCELERATORS, "pool, capacity_type"), POOL),), "Of registered engines."),
        Panel("Tenants, per hour", "short", ((f"topk(10, 3600 * {top_rate(c.TENANT_COST, 'tenant, band')})", LEGEND),)),
    ),
    "Engines": (
        Panel("Engines that take requests", "short",
              ((f"sum (max by (engine) ({n.ENGINE_UP.name}{MODEL}))", "up"),)),
        Panel("Leases by engine", "short", ((top(n.ENGINE_RUNNING, "engine"), "{{engine}}"),)),
        Panel("Depth that the queue learnt", "short",
              ((top(n.ENGINE_DEPTH, "engine"), "{{engine}}"),
               (top(n.ENGINE_MAX_DEPTH, "engine"), "{{engine}} at most"))),
        Panel("Sessions by revision", "percentunit", ((top(n.REVISION_SHARE, "revision"), "{{revision}}"),)),
        Panel("Streams by revision", "reqps",
              ((f"sum by (revision) (rate({n.REVISION_ENDED.name}{MODEL}[5m]))", "{{revision}} ended"),
               (f"sum by (revision) (rate({n.REVISION_LOST.name}{MODEL}[5m]))", "{{revision}} lost"))),
        Panel("Step time", "s", ((top(n.ENGINE_STEP, "engine"), "{{engine}}"),)),
        Panel("KV cache promised", "percentunit", ((top(n.ENGINE_KV, "engine"), "{{engine}}"),)),
        Panel("GPU memory", "percentunit",
              ((f"{n.RAY_METRICS[0]} / ({n.RAY_METRICS[0]} + {n.RAY_METRICS[1]})", "{{instance}} {{GpuIndex}}"),)),
        Panel("Answers that outlive their gateway", "reqps",
              ((rate(n.JOURNAL, "verdict", only=""), "{{verdict}}"),), "Calls for journalled answers."),
        Panel("Migrations", "short",
              ((f"sum by (why) (increase({n.MIGRATIONS.name}[$__rate_interval]))", "{{why}}"),)),
        Panel("Lost log lines", "short", ((f"sum (increase({n.LOG_DROPPED.name}[$__rate_interval]))", "lines"),)),
    ),
}  # fmt: skip


def dashboard() -> dict[str, Any]:
    """The dashboard in Grafana's model, schema 39."""
    panels: list[dict[str, Any]] = []
    top_y = 0
    for row, members in ROWS.items():
        panels.append({"id": len(panels) + 1, "type": "row", "title": row, "collapsed": False, "panels": [],
                       "gridPos": {"h": 1, "w": 24, "x": 0, "y": top_y}})  # fmt: skip
        for number, panel in enumerate(members):
            line, column = divmod(number, COLUMNS)
            place = {"h": HEIGHT, "w": WIDTH, "x": column * WIDTH, "y": top_y + 1 + line * HEIGHT}
            panels.append(_graph(len(panels) + 1, panel, place))
        top_y += 1 + -(-len(members) // COLUMNS) * HEIGHT
    return {
        "uid": "expertmesh", "title": "ExpertMesh", "schemaVersion": 39, "version": 1, "editable": True,
        "refresh": "10s", "time": {"from": "now-30m", "to": "now"}, "tags": ["expertmesh"], "panels": panels,
        "templating": {"list": [
            {"name": "datasource", "type": "datasource", "query": "prometheus"},
            {"name": "model", "type": "query", "datasource": SOURCE, "includeAll": True, "multi": True,
             "query": f"label_values({n.REQUESTS.name}, model)", "current": {"text": "All", "value": "$__all"}},
        ]},
    }  # fmt: skip


def _graph(number: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    targets = [
        {"refId": chr(ord("A") + i), "datasource": SOURCE, "expr": query, "legendFormat": legend}
        for i, (query, legend) in enumerate(panel.queries)
    ]
    return {
        "id": number, "type": "timeseries", "title": panel.title, "description": panel.description,
        "datasource": SOURCE, "gridPos": place, "targets": targets,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
    }  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(dashboard(), indent=1))
