"""Metrics: counting, bounded labels, merging, the Prometheus page."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from services.telemetry import names, queue_watch
from services.telemetry.metrics import MAX_CHILDREN, OTHER, FamilySample, Histogram, Metrics, merged
from services.telemetry.names import ALL_METRICS, Metric
from services.telemetry.prometheus import PrometheusPage
from services.telemetry.queue_metrics import queue_families
from services.telemetry.queue_watch import QueueWatch

COUNTER = Metric("c_total", "counter", "A counter.", ("who",))
GAUGE = Metric("g", "gauge", "A gauge.")
TIMES = Metric("t_seconds", "histogram", "Times.", ("who",), (0.1, 1.0))


def values(page: bytes) -> dict[tuple[str, tuple[str, ...]], float]:
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


def test_a_value_on_a_bound_belongs_below_it() -> None:
    histogram = Histogram((0.1, 1.0))
    for value in (0.1, 0.10001, 1.0, 5.0):
        histogram.observe(value)
    assert histogram.counts == [1, 2, 1]


def test_children_are_the_same_object_for_the_same_labels() -> None:
    metrics = Metrics([COUNTER])
    assert metrics.number(COUNTER, "a") is metrics.number(COUNTER, "a")
    assert metrics.number(COUNTER, "a") is not metrics.number(COUNTER, "b")


def test_wrong_labels_and_foreign_families_are_errors() -> None:
    metrics = Metrics([COUNTER])
    with pytest.raises(ValueError, match="labels"):
        metrics.number(COUNTER)
    with pytest.raises(KeyError):
        metrics.number(GAUGE)


def test_labels_without_end_are_counted_together() -> None:
    metrics = Metrics([COUNTER])
    for i in range(MAX_CHILDREN + 10):
        metrics.number(COUNTER, str(i)).value += 1
    (family,) = metrics.snapshot()
    assert len(family.samples) == MAX_CHILDREN + 1
    assert {sample.labels: sample.value for sample in family.samples}[(OTHER,)] == 10


def test_the_page_is_what_a_prometheus_parser_reads() -> None:
    metrics = Metrics([COUNTER, GAUGE, TIMES])
    metrics.number(COUNTER, 'a "quoted"\nname').value += 2
    metrics.number(GAUGE).value = 1.5
    for value in (0.05, 0.5, 3.0):
        metrics.histogram(TIMES, "x").observe(value)
    metrics.histogram(TIMES, "x").merge([1, 0, 0], 0.01)
    page = values(PrometheusPage(metrics.snapshot).render())
    assert page[("c_total", ('a "quoted"\nname',))] == 2
    assert page[("g", ())] == 1.5
    assert page[("t_seconds_bucket", ("0.1", "x"))] == 2 or page[("t_seconds_bucket", ("x", "0.1"))] == 2
    assert page[("t_seconds_count", ("x",))] == 4
    assert page[("t_seconds_sum", ("x",))] == pytest.approx(3.56)
    assert any(name.startswith("process_") for name, _ in page)


def test_several_processes_add_up_also_after_travelling() -> None:
    one, two = Metrics([COUNTER, TIMES]), Metrics([COUNTER, TIMES])
    one.number(COUNTER, "a").value = 1
    two.number(COUNTER, "a").value = 2
    two.number(COUNTER, "b").value = 5
    one.histogram(TIMES, "x").observe(0.5)
    two.histogram(TIMES, "x").observe(5)
    sent = msgspec.msgpack.decode(msgspec.msgpack.encode(two.snapshot()), type=tuple[FamilySample, ...])
    counter, times = merged([one.snapshot(), sent])
    assert {sample.labels[0]: sample.value for sample in counter.samples} == {"a": 3, "b": 5}
    assert times.samples[0].counts == (0, 1, 1)


def test_names_follow_prometheus_rules() -> None:
    assert len({metric.name for metric in ALL_METRICS}) == len(ALL_METRICS)
    for metric in ALL_METRICS:
        assert metric.name.startswith(names.PREFIX)
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert bool(metric.bounds) == (metric.kind == "histogram")
        assert list(metric.bounds) == sorted(set(metric.bounds))
        assert metric.help.endswith(".") and not {"le", "quantile"} & {*metric.labels}


BAND = {
    "name": "vip", "waiting": 3, "waiting_tokens": 300, "oldest_age_s": 1.5, "running": 2, "granted": 9,
    "preempted": 1, "refused": {"queue_full": 4}, "resumed": 1, "reserved_slots": 2,
}  # fmt: skip
ENGINE = {
    "engine_id": "e1",
    "up": True,
    "draining": False,
    "running": 2,
    "kv_reserved_tokens": 50,
    "kv_tokens": 200,
    "step_s": 0.02,
    "depth": 6,
    "max_num_seqs": 8,
}
TENANT = {
    "tenant": "t", "band": "vip", "waiting": 1, "running": 2, "backlog_age_s": 0.5, "granted": 3,
    "wait_sum_s": 0.1, "preempted": 0, "refused": {"queue_full": 2},
}  # fmt: skip
SNAPSHOT = {
    "model": "m", "saturation": 0.5, "capacity_slots": 8, "borrowed_slots": 1, "bands": [BAND],
    "engines": [ENGINE, ENGINE | {"engine_id": "e2", "draining": True}],
    "tenants": [TENANT],
}  # fmt: skip


def test_the_queues_snapshot_becomes_families() -> None:
    page = values(PrometheusPage(lambda: queue_families([SNAPSHOT])).render())
    assert page[("expertmesh_queue_waiting_requests", ("vip", "m"))] == 3
    assert page[("expertmesh_queue_refused_total", ("vip", "m", "queue_full"))] == 4
    assert page[("expertmesh_engine_up", ("e1", "m"))] == 1
    assert page[("expertmesh_engine_up", ("e2", "m"))] == 0
    assert page[("expertmesh_engine_kv_reserved_ratio", ("e1", "m"))] == 0.25


def test_the_snapshots_fields_are_the_queues_own() -> None:
    from services.queue.stats import BandView, EngineView, QueueSnapshot, TenantView

    for plain, struct in (
        (BAND, BandView),
        (ENGINE, EngineView),
        (TENANT, TenantView),
        (SNAPSHOT, QueueSnapshot),
    ):
        assert plain.keys() <= set(struct.__struct_fields__)


def test_a_queue_that_is_away_has_no_figures() -> None:
    async def scenario() -> None:
        answers: list[Any] = [[SNAPSHOT], ConnectionError("away"), [SNAPSHOT]]

        async def fetch() -> Any:
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        watch = QueueWatch(fetch)
        seen: list[bool] = []
        for _ in range(3):
            await watch.fetch()
            seen.append(bool(watch.families()))
        assert seen == [True, False, True]

    asyncio.run(scenario())


def test_figures_are_fetched_when_they_are_looked_at_and_then_not_at_once_again() -> None:
    async def scenario() -> None:
        fetched = 0

        async def fetch() -> Any:
            nonlocal fetched
            fetched += 1
            return [SNAPSHOT]

        watch = QueueWatch(fetch)
        assert not fetched
        await asyncio.gather(watch.refresh(), watch.refresh())
        assert fetched == 1
        assert watch.families()

    asyncio.run(scenario())


def test_a_page_does_not_wait_for_a_queue_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_watch, "WITHIN_S", 0.0)

    async def scenario() -> None:
        watch = QueueWatch(asyncio.Event().wait)
        await watch.refresh()
        assert not watch.families()

    asyncio.run(scenario())
