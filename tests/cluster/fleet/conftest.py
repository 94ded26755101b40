"""The one mesh of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.stack import Stack


@pytest.fixture(scope="package")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Three simulated engines and two gateways, for what kills, drains and replaces them. Leave it
    whole."""
    # Left to Ray, a replica that gets a SIGTERM goes when this poll is answered: here, after all tests.
    poll = "LISTEN_FOR_CHANGE_REQUEST_TIMEOUT_S_{}_BOUND"
    stack = Stack(
        tmp_path_factory.mktemp("fleet"), "expertmesh", "run", "--graph", "sim", "engines=3", "gateways=2",
        environment={poll.format("LOWER"): "1800", poll.format("UPPER"): "3600"},
    )  # fmt: skip
    try:
        stack.wait_ready()
        yield stack
    finally:
        stack.stop()
