"""Every planted bug is found within 1,000 seeds, by an invariant and not by a traceback."""

from __future__ import annotations

import pytest

from services.twin.runner import first_failure
from services.twin.world import World
from tests.simulation.mutants import MUTANTS
from tests.simulation.planting import Mutant

WITHIN = 1000


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_bug_is_found(mutant: Mutant) -> None:
    seeds = [seed for seed in range(WITHIN) if not mutant.where or World.has(seed, mutant.where)]
    with mutant.planted():
        found = first_failure(seeds)
    assert found is not None, f"not found in {WITHIN} seeds"
    assert found.number > 0, f"seed {found.seed} broke by itself: {found.problem}"


def test_there_are_enough_of_them() -> None:
    assert len(MUTANTS) >= 20 and len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
