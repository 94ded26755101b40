"""`expertmesh queue`: parsing and drawing, from the page that telemetry really renders."""

from __future__ import annotations

import msgspec

from services.cli.queue import draw, parse
from services.config import QueueConfig
from services.link.messages import Acquire, EngineUp
from services.queue.events import FromEngine, FromGateway
from services.queue.scheduler import Scheduler
from services.queue.view import snapshot
from services.telemetry.queue_metrics import queue_families

PAGE = """
# HELP expertmesh_queue_waiting_requests Choices that wait.
expertmesh_queue_waiting_requests{model="m",band="batch"} 3
expertmesh_queue_granted_total{model="m",band="batch"} 40
expertmesh_queue_refused_total{model="m",band="batch",reason="queue_full"} 7
expertmesh_queue_capacity_slots{model="m"} 16
expertmesh_engine_up{model="m",engine="e0"} 1
other_metric 1
"""


def test_a_picture_shows_bands_engines_and_rates() -> None:
    now = parse(PAGE)
    before = parse(PAGE.replace("} 40", "} 30"))
    picture = draw(now, before, 2.0)
    assert "slots 16" in picture
    row = next(line for line in picture.splitlines() if line.startswith("batch"))
    assert row.split()[1] == "3"
    assert "5.0" in row
    assert "queue_full 7" in row
    assert any(line.startswith("e0") and "yes" in line for line in picture.splitlines())


def test_a_page_without_figures_says_so() -> None:
    assert "no queue figures" in draw(parse("python_info 1\n"))


def test_a_snapshot_is_plain_data_with_bounded_labels() -> None:
    scheduler = Scheduler(QueueConfig())
    scheduler.decide(FromEngine(EngineUp("e0", "x:1", "m", 4, 10_000, 16, 4096)), 100.0)
    for ticket in range(1, 101):
        ask = Acquire(ticket, f"r{ticket}", "m", f"tenant-{ticket}", "standard", 10, 10, 2.0, 60.0)
        scheduler.decide(FromGateway("g", ask), 100.0)
    picture = snapshot(scheduler.state, "m", 103.0)
    assert len(picture.tenants) <= 33
    assert sum(t.waiting + t.running for t in picture.tenants) == 100
    standard = picture.bands[1]
    assert (standard.waiting, standard.running, standard.oldest_age_s) == (98, 2, 5.0)
    assert standard.wait_buckets[-1] == standard.granted == 2
    assert queue_families([msgspec.to_builtins(picture)])
