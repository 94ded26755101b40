"""Shared by all suites: markers by folder, fast suites first, deterministic properties, the house figures."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler import LoadScopeScheduling

TESTS = Path(__file__).parent
ORDER = (
    "architecture",
    "unit",
    "properties",
    "contracts",
    "simulation",
    "mesh",
    "graph",
    "infra",
    "cluster",
    "gpu",
)
FAST = ("unit", "properties")
LIVE = ("contracts", "mesh", "cluster")
RERUNS = 1
"""Live tests start real processes, whole meshes dozens of Ray's, which lose a race among themselves now and then: once
more, and it is said at the end (`R`, RERUN). All other suites have no second try."""
FILL_BOTH_CORES = (
    "tests/contracts/test_engine.py",
    "tests/cluster/test_deepseek.py",
    "tests/cluster/test_embedded_model.py",
    "tests/cluster/test_expert_parallel.py",
    "tests/cluster/test_first_light.py",
    "tests/cluster/test_layouts.py",
    "tests/cluster/test_sparse_model.py",
)
"""Their vLLM ranks have a core each: with several workers (`make test` has two) one runs them all, one after the other,
and begins with them; what remains goes, test by test, to whoever is free."""

settings.register_profile(
    "mesh", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "mesh"))

_seconds: dict[str, float] = {}


@pytest.fixture(autouse=True, scope="module")
def environment_stays() -> Iterator[None]:
    """What libraries leave in our environment (vLLM: LD_PRELOAD, thread counts) is not for other modules' children."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def suite_of(path: Path) -> str:
    """The folder below tests/."""
    return path.relative_to(TESTS).parts[0]


def unproven() -> list[tuple[str, str]]:
    """Beginnings and ends of the ids of tests not yet seen to pass (tests/unproven.txt says why)."""
    lines = (TESTS / "unproven.txt").read_text().splitlines()
    ids = [line.split(" #")[0].strip() for line in lines if line.strip() and not line.startswith("#")]
    return [(begin, end) for begin, _, end in (one.partition(" … ") for one in ids)]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    from xdist.scheduler import LoadScopeScheduling

    class Scheduler(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "both cores" if nodeid.startswith(FILL_BOTH_CORES) else nodeid

    return Scheduler(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    waiting = unproven()
    for item in items:
        if any(item.nodeid.startswith(begin) and item.nodeid.endswith(end) for begin, end in waiting):
            item.add_marker("unproven")
        suite = suite_of(item.path)
        if suite in ("cluster", "gpu"):
            item.add_marker(suite)
        if suite in LIVE:
            item.add_marker(pytest.mark.flaky(reruns=RERUNS))
    items.sort(key=lambda item: ORDER.index(suite_of(item.path)) if suite_of(item.path) in ORDER else 99)
    if hasattr(config, "workerinput"):  # one of several workers
        items.sort(key=lambda item: not item.nodeid.startswith(FILL_BOTH_CORES))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    suite = report.nodeid.split("/")[1] if "/" in report.nodeid else ""
    _seconds[suite] = _seconds.get(suite, 0.0) + report.duration


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.section("house figures")
    for suite, seconds in _seconds.items():
        terminalreporter.write_line(f"{suite:13s} {seconds:7.1f} s")
    if all(suite in _seconds for suite in FAST):
        terminalreporter.write_line(
            f"unit and properties: {sum(_seconds[suite] for suite in FAST):.1f} s (aim: 15)"
        )
    if "architecture" in _seconds:
        from tests.architecture.test_one_sentence import house_figures

        terminalreporter.write_line(house_figures())
