"""What operators see: every figure on the metrics page, true to the queue, with few labels, and without a look at
each entry.

1. Depth, wait, age, grants, loans, preemptions and refusals by reason: each is on the page, per band and tenant.
2. Labels are bounded: at most MAX_NAMED tenants by name, the rest as "other"; together they are the bands' figures.
3. A tenant that floods has a name, whoever came first; what "other" counts never shrinks.
4. The age of the oldest is right to a tenth of a second, whatever leaves in between.
"""

from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from services.config import BandConfig, QueueConfig
from services.queue.ages import Ages
from services.queue.events import Tick
from services.queue.scheduler import Scheduler
from services.queue.stats import QueueSnapshot
from services.queue.tenants import MAX_NAMED, OTHER
from services.queue.view import snapshot
from services.telemetry.prometheus import PrometheusPage
from services.telemetry.queue_metrics import queue_families
from tests.unit.queue.making import answer, asking, queue

PREFIX = "expertmesh_"


def page(scheduler: Scheduler, now_s: float) -> dict[tuple[str, str], float]:
    """(metric, labels in the order of their names) → value."""
    told = msgspec.to_builtins(snapshot(scheduler.state, "m", now_s))
    text = PrometheusPage(lambda: queue_families([told])).render().decode()
    return {
        (
            sample.name.removeprefix(PREFIX),
            ",".join(sample.labels[k] for k in sorted(sample.labels)),
        ): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_1_every_figure_is_on_the_page() -> None:
    bands = tuple(
        band.model_copy(update={"max_queued": 3}) if band.name == "batch" else band
        for band in QueueConfig().bands
    )
    scheduler = queue(QueueConfig(bands=bands), slots=4)
    for ticket in range(
        1, 8
    ):  # two run (half the engine's slots until more is learnt), three wait, two are too many
        answer(scheduler, asking(ticket, "batch", tenant="b"))
    answer(scheduler, asking(20, "vip", tenant="v"), 101.0)  # and pauses one of the two
    seen = page(scheduler, 102.5)
    expected = {
        ("queue_waiting_requests", "batch,m"): 3,
        ("queue_waiting_tokens", "batch,m"): 60,
        ("queue_oldest_age_seconds", "batch,m"): 2.5,
        ("queue_running_requests", "batch,m"): 1,
        ("queue_running_requests", "vip,m"): 1,
        ("queue_reserved_slots", "vip,m"): 1,
        ("queue_reserved_slots", "batch,m"): 0,
        ("queue_granted_total", "batch,m"): 2,
        ("queue_preempted_total", "batch,m"): 1,
        ("queue_resumed_total", "batch,m"): 0,
        ("queue_refused_total", "batch,m,queue_full"): 2,
        ("queue_borrowed_slots", "m"): 0,
        ("queue_tenant_waiting_requests", "batch,m,b"): 3,
        ("queue_tenant_running_requests", "batch,m,b"): 1,
        ("queue_tenant_backlog_age_seconds", "batch,m,b"): 2.5,
        ("queue_tenant_granted_total", "batch,m,b"): 2,
        ("queue_tenant_granted_total", "vip,m,v"): 1,
        ("queue_tenant_wait_seconds_total", "vip,m,v"): 0,
        ("queue_tenant_preempted_total", "batch,m,b"): 1,
        ("queue_tenant_refused_total", "batch,m,queue_full,b"): 2,
        ("engine_depth_slots", "e0,m"): 2,
        ("engine_max_depth_slots", "e0,m"): 4,
    }
    assert {key: seen.get(key) for key in expected} == expected


def test_1_loans_are_seen() -> None:
    scheduler = queue(slots=16)
    for ticket in range(1, 20):
        answer(scheduler, asking(ticket, "batch"))
    seen = page(scheduler, 100.0)
    assert seen["queue_borrowed_slots", "m"] == seen["queue_reserved_slots", "vip,m"] == 2


def sums(picture: QueueSnapshot, band: str) -> tuple[int, ...]:
    rows = [tenant for tenant in picture.tenants if tenant.band == band]
    return tuple(
        sum(getattr(row, field) for row in rows)
        for field in ("waiting", "waiting_tokens", "running", "registered", "granted", "preempted")
    )


def test_2_tenants_without_a_name_are_summed_up() -> None:
    scheduler = queue(QueueConfig(max_tenant_queued=1), slots=4)
    for ticket in range(1, 301):
        band = ("vip", "standard", "batch")[ticket % 3]
        answer(scheduler, asking(ticket, band, tenant=f"tenant-{ticket % 100}", age_s=2.0))
    picture = snapshot(scheduler.state, "m", 103.0)
    assert len(picture.tenants) <= MAX_NAMED + len(picture.bands)
    for band in picture.bands:
        own = band.waiting, band.waiting_tokens, band.running, band.registered, band.granted, band.preempted
        assert sums(picture, band.name) == own
        assert band.oldest_age_s == 5.0
        assert band.wait_buckets[-1] == band.granted
        refused = sum(sum(tenant.refused.values()) for tenant in picture.tenants if tenant.band == band.name)
        assert refused == sum(band.refused.values())


def test_3_who_floods_has_a_name() -> None:
    scheduler = queue(QueueConfig(bands=(BandConfig(name="standard", rank=0),)))
    for ticket in range(1, 2 * MAX_NAMED):
        answer(scheduler, asking(ticket, tenant=f"tenant-{ticket}"))
    others: list[int] = []
    for ticket in range(1000, 1100):
        answer(scheduler, asking(ticket, tenant="flood", remaining_s=600.0))
        if ticket % 10 == 0:
            scheduler.decide(Tick(), 100.0 + ticket - 1000)
            rows = snapshot(scheduler.state, "m", 100.0).tenants
            others += [row.registered for row in rows if row.tenant == OTHER]
    shown = {row.tenant: row for row in snapshot(scheduler.state, "m", 100.0).tenants}
    assert shown["flood"].waiting == 100
    assert len(shown) == MAX_NAMED + 1
    assert others == sorted(others)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(0.0, 500.0), st.booleans()), min_size=1, max_size=60))
def test_4_the_age_of_the_oldest(arrivals: list[tuple[float, bool]]) -> None:
    ages = Ages()
    waiting: list[float] = []
    for arrived_s, leaves in arrivals:
        ages.add(arrived_s)
        waiting.append(arrived_s)
        if leaves:
            ages.remove(waiting.pop(len(waiting) // 2))
        right = 1000.0 - min(waiting) if waiting else 0.0
        assert right <= ages.oldest_s(1000.0) + 1e-9
        assert ages.oldest_s(1000.0) <= right + 0.1 + 1e-9
