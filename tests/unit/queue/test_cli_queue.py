"""`expertmesh queue`: parsing and drawing a metrics page, and limits as they are typed."""

from __future__ import annotations

import re

import msgspec
import pytest
import typer

from services.cli.queue import draw, parse, wish
from services.queue.limits import ChangeLimits, merged
from services.queue.rollout.operations import Wish

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
