"""Engines die all the time, on a virtual clock: what the mesh itself loses of what its live engines could make. The
real gateways, queue and engines of the twin; the scene on real processes is `load_tests.survival churn`.

1. Three of five engines die within three quarters of a minute (four times what that scene kills), each away for as
   long as a process needs to start, and more is asked than all could make: nobody fails, no token is wrong, and 98% of
   live capacity reaches clients.

Live capacity: engines that are up times slots times a token per step, added up; without a pause for prefill or between
two streams. What is generated again after a death is not in it, nor are the steps in which a slot had nobody.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from random import Random

import pytest

from tests.simulation.test_comebacks import STEP_S, TOKENS, Mesh

NUM_ENGINES, SLOTS, KILLS = 5, 2, 3
AWAY_S = 8.0
FULL_S, SECONDS = 5.0, 45.0
REQUEST_S = TOKENS * STEP_S


class Busy(Mesh):
    """Somebody asks as often as all engines could answer, and a tenth more."""

    def __init__(self, seed: int) -> None:
        super().__init__(clients=0, slots=SLOTS, revisions=("",) * NUM_ENGINES)
        rng, per_s = Random(seed), 1.1 * NUM_ENGINES * SLOTS / REQUEST_S
        at_s, number = 0.5, 0
        while at_s < FULL_S + SECONDS:
            self.sim.at(at_s, None, self._ask, number)
            at_s, number = at_s + rng.expovariate(per_s), number + 1
        self.away_s = 0.0
        for victim in rng.sample(self.engines, KILLS):
            kill_s = FULL_S + rng.uniform(0.0, SECONDS - AWAY_S)
            self.sim.at(kill_s, None, victim.crash, AWAY_S)
            self.away_s += AWAY_S

    def goodput(self) -> float:
        """The share of live capacity that reached clients."""
        self.sim.run(FULL_S + SECONDS + 60.0)
        if self.oracle.first is not None:
            raise self.oracle.first
        assert not self.oracle.unfinished()
        came = sum(
            FULL_S <= at_s < FULL_S + SECONDS for times_s in self.oracle.seen_s.values() for at_s in times_s
        )
        return came / ((NUM_ENGINES * SECONDS - self.away_s) * SLOTS / STEP_S)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_1_three_of_five_engines_die() -> None:
    assert Busy(seed=1).goodput() >= 0.98
