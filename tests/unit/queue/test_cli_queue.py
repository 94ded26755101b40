"""`expertmesh queue`: parsing and drawing, from the page that telemetry really renders."""

from __future__ import annotations

from services.cli.queue import draw, parse

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
