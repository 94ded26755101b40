"""`expertmesh queue`: parsing and drawing a metrics page, and limits as they are typed."""

from __future__ import annotations

import re

import msgspec
import pytest
import typer

from services.cli import queue as command
from services.cli.queue import wish
from services.cli.queue_picture import MAX_TENANTS, draw, parse
from services.config import QueueConfig
from services.queue.limits import ChangeLimits, merged
from services.queue.rollout.operations import Wish
from services.queue.view import snapshot
from services.telemetry.prometheus import PrometheusPage
from services.telemetry.queue_metrics import queue_families
from tests.unit.queue.making import answer, asking, queue

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


def test_what_gateways_waited_is_no_model_of_the_queue() -> None:
    """Requests that name no model are counted under another name there."""
    more = 'expertmesh_queue_wait_seconds_count{model="default",band="standard"} 1\n'
    assert draw(parse(PAGE + more)) == draw(parse(PAGE))


def test_limits_on_the_command_line_are_what_the_queue_takes() -> None:
    said = wish(["max_tenant_queued=50", "batch.max_queued=10", "batch.preemptible=false"], reset=True)
    told = msgspec.json.decode(msgspec.json.encode(said), type=Wish)
    assert told == ChangeLimits(
        {"max_tenant_queued": 50, "bands": {"batch": {"max_queued": 10, "preemptible": False}}}, reset=True
    )
    assert merged({}, told.changes) == told.changes


@pytest.mark.parametrize("setting", ["max_queued", "max_queued=", "max_queued=many", "=3x"])
def test_nonsense_on_the_command_line_is_named(setting: str) -> None:
    with pytest.raises(typer.BadParameter, match=re.escape(setting)):
        wish([setting], reset=False)


def page_of(requests: int, tenants: int) -> str:
    """The metrics page of a real queue: batch requests of some tenants, then a VIP that pauses one."""
    scheduler = queue(QueueConfig(max_tenant_queued=4), slots=8)
    for ticket in range(1, requests + 1):
        answer(scheduler, asking(ticket, "batch", tenant=f"tenant-{ticket % tenants}", age_s=1.5))
    answer(scheduler, asking(9_999, "vip", tenant="important"), 101.0)
    told = msgspec.to_builtins(snapshot(scheduler.state, "m", 102.0))
    return PrometheusPage(lambda: queue_families([told])).render().decode()


def test_everything_that_an_operator_looks_for_is_in_the_picture() -> None:
    """Depth, wait, age, grants, loans, preemptions, refusals by reason: per band and tenant."""
    picture = draw(parse(page_of(14, 2)), parse(page_of(0, 2)), 2.0)
    assert "slots 4" in picture
    assert "borrowed" in picture
    columns = "waiting tokens oldest s wait s running reserved granted/s preempted refused"
    lines = picture.splitlines()
    header = next(line for line in lines if line.startswith("band"))
    assert header.split() == ["band", *columns.split()]
    batch = next(line for line in lines if line.startswith("batch")).split()
    assert batch[:6] == ["batch", "8", "160", "3.5", "1.50", "3"]
    assert batch[7:] == ["2.0", "1", "queue_full", "2"]
    tenant = next(line for line in lines if line.startswith("tenant-1")).split()
    assert tenant[1:] == ["batch", "4", "3.5", "1.50", "2", "1.0", "0", "queue_full", "1"]
    engine = next(line for line in lines if line.startswith("e0")).split()
    assert engine[1:5] == ["yes", "4", "4", "8"]


def test_a_thousand_tenants_fill_no_more_than_a_screen() -> None:
    picture = draw(parse(page_of(100, 100)))
    assert sum(line.startswith(("tenant-", "other")) for line in picture.splitlines()) <= MAX_TENANTS
    assert "more" in picture


def test_it_draws_again_and_again_until_it_is_interrupted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pages = [PAGE, PAGE.replace("} 40", "} 60")]

    def no_sleep(_: float) -> None:
        if not pages:
            raise KeyboardInterrupt

    monkeypatch.setattr(command, "fetch", lambda url, key: pages.pop(0))
    monkeypatch.setattr(command.time, "sleep", no_sleep)
    command.queue(
        url="http://localhost", key="", every_s=2.0, once=False, limits=False, change=None, reset=False
    )
    shown = capsys.readouterr().out.split("m   slots 16")[1:]
    assert len(shown) == 2
    assert "-" in next(line for line in shown[0].splitlines() if line.startswith("batch"))
    assert "queue_full 7" in shown[1]
