"""Every planted bug is found within 1,000 seeds, by an invariant and not by a traceback."""

from __future__ import annotations

import pytest

from services.twin.runner import first_failure
from tests.simulation.mutants import MUTANTS, Mutant

WITHIN = 1000


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_bug_is_found(mutant: Mutant) -> None:
    with mutant.planted():
        found = first_failure(range(WITHIN))
    assert found is not None, f"not found in {WITHIN} seeds"
    assert found.number > 0, f"seed {found.seed} broke by itself: {found.problem}"


def test_there_are_enough_of_them() -> None:
    assert len(MUTANTS) >= 20 and len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
