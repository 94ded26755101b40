"""A release and a drained worker on real processes, with streams going: the scenes of `load_tests.survival rollout` in
their short form. Another revision comes as a second application, as an operator brings it; every token is compared with
what one revision of the model says.
"""

from __future__ import annotations

import asyncio

import pytest

from load_tests.survival import rollout
from load_tests.survival.attached import Attached
from tests.cluster.stack import Stack

pytestmark = pytest.mark.cluster

LANES, TOKENS = 10, 50


def during(stack: Stack, scene: rollout.Scene) -> rollout.Crowd:
    crowd = rollout.Crowd(stack, LANES, TOKENS)
    asyncio.run(crowd.during(scene(Attached(stack))))
    print(f"{scene.__name__}: {crowd.verdict()}")
    assert not crowd.failed, crowd.verdict()
    return crowd


def test_a_canary_takes_over_and_goes_again(fleet: Stack) -> None:
    """By weight, sessions change once at most; then everything goes back at once, and the green side is deleted."""
    crowd = during(fleet, rollout.canary)
    assert any(one.revision == rollout.NEW for one in crowd.streams)
    assert all(len(seen) <= 2 for seen in crowd.seen.values()), crowd.seen
    during(fleet, rollout.blue_green)


def test_a_drained_worker_is_replaced(fleet: Stack) -> None:
    during(fleet, rollout.drain)
