"""One start of the dev graph for all end-to-end tests of a module: it costs most of a minute. Only the small simulated
one stays for all modules, and a process that only waits: what runs on takes part of two cores from the tests that
follow."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster import forked_ranks
from tests.cluster.stack import Stack


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """`expertmesh run`, which is what `make run` starts: two vLLM ranks, a Valkey, every service."""
    stack = Stack(tmp_path_factory.mktemp("mesh"), "expertmesh", "run")
    try:
        stack.wait_ready()
        yield stack
    finally:
        code = stack.stop()
        left = stack.pids()
    assert code == 0, stack.output[-3000:]
    assert left == [], f"left behind: {left}"


@pytest.fixture(scope="session")
def sim_mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The same stack with simulated engines: seconds to start, tokens that can be checked."""
    stack = Stack(tmp_path_factory.mktemp("sim"), "expertmesh", "run", "--graph", "sim")
    try:
        stack.wait_ready()
        yield stack
    finally:
        stack.stop()


@pytest.fixture(scope="session")
def importer() -> Iterator[forked_ranks.Importer]:
    """A process that has imported vLLM: 15 s for all who fork their ranks from it."""
    with forked_ranks.importer() as process:
        yield process
