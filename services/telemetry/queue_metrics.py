"""The queue's figures as metrics, from the snapshot that its deployment gives as plain data.

Rules: pure; knows the snapshot's field names (services/queue/stats.py) and nothing else of the queue. Every
gateway may show them: there is one authority, so all show the same, and dashboards take the maximum over
gateways.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from . import cost_names, names
from .metrics import FamilySample, Metrics

Plain = Mapping[str, Any]


def queue_families(snapshots: Iterable[Plain]) -> Sequence[FamilySample]:
    """Families of names.QUEUE_METRICS for the snapshots of all models. Raises KeyError on a foreign
    snapshot."""
    metrics = Metrics(names.QUEUE_METRICS)
    for snapshot in snapshots:
        model = str(snapshot["model"])
        metrics.number(names.QUEUE_SATURATION, model).value = snapshot["saturation"]
        metrics.number(names.QUEUE_SLOTS, model).value = snapshot["capacity_slots"]
        metrics.number(names.QUEUE_BORROWED, model).value = snapshot["borrowed_slots"]
        revision = str(snapshot.get("revision", ""))
        if revision:
            whose = model.removesuffix(f"@{revision}"), revision
            metrics.number(names.REVISION_SHARE, *whose).value = snapshot["share"]
            metrics.number(names.REVISION_ENDED, *whose).value = snapshot["ended"]
            metrics.number(names.REVISION_LOST, *whose).value = snapshot["lost"]
        for band in snapshot["bands"]:
            _band(metrics, model, band)
        for tenant in snapshot["tenants"]:
            _tenant(metrics, model, tenant)
        for engine in snapshot["engines"]:
            _engine(metrics, model, engine)
        for pool in snapshot.get("pools", ()):
            _pool(metrics, model, str(snapshot.get("currency", "")), pool)
    return metrics.snapshot()


def _band(metrics: Metrics, model: str, band: Plain) -> None:
    name = str(band["name"])
    for metric, field in (
        (names.QUEUE_WAITING, "waiting"),
        (names.QUEUE_WAITING_TOKENS, "waiting_tokens"),
        (names.QUEUE_OLDEST, "oldest_age_s"),
        (names.QUEUE_RUNNING, "running"),
        (names.QUEUE_GRANTED, "granted"),
        (names.QUEUE_PREEMPTED, "preempted"),
        (names.QUEUE_RESUMED, "resumed"),
        (names.QUEUE_RESERVED, "reserved_slots"),
    ):
        metrics.number(metric, model, name).value = band[field]
    for reason, count in band["refused"].items():
        metrics.number(names.QUEUE_REFUSED, model, name, reason).value = count


def _tenant(metrics: Metrics, model: str, tenant: Plain) -> None:
    labels = model, str(tenant["band"]), str(tenant["tenant"])
    for metric, field in (
        (names.TENANT_WAITING, "waiting"),
        (names.TENANT_RUNNING, "running"),
        (names.TENANT_BACKLOG_AGE, "backlog_age_s"),
        (names.TENANT_GRANTED, "granted"),
        (names.TENANT_WAIT, "wait_sum_s"),
        (names.TENANT_PREEMPTED, "preempted"),
    ):
        metrics.number(metric, *labels).value = tenant[field]
    if cost := tenant.get("cost"):
        metrics.number(cost_names.TENANT_COST, *labels).value = cost
    for reason, count in tenant["refused"].items():
        metrics.number(names.TENANT_REFUSED, *labels, reason).value = count


def _pool(metrics: Metrics, model: str, currency: str, pool: Plain) -> None:
    labels = model, str(pool["pool"]), str(pool["capacity_type"]), currency
    for metric, field in (
        (cost_names.POOL_ACCELERATORS, "accelerator_s"),
        (cost_names.POOL_PAID, "paid"),
        (cost_names.POOL_USED, "used"),
        (cost_names.POOL_LISTED, "listed"),
    ):
        metrics.number(metric, *labels).value = pool[field]


def _engine(metrics: Metrics, model: str, engine: Plain) -> None:
    name = str(engine["engine_id"])
    metrics.number(names.ENGINE_UP, model, name).value = float(engine["up"] and not engine["draining"])
    metrics.number(names.ENGINE_RUNNING, model, name).value = engine["running"]
    metrics.number(names.ENGINE_KV, model, name).value = engine["kv_reserved_tokens"] / max(
        1, engine["kv_tokens"]
    )
    metrics.number(names.ENGINE_STEP, model, name).value = engine["step_s"]
    metrics.number(names.ENGINE_DEPTH, model, name).value = engine["depth"]
    metrics.number(names.ENGINE_MAX_DEPTH, model, name).value = engine["max_num_seqs"]
