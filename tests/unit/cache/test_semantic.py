"""The bound on wrong hits, and what is learned on the way to it."""

from __future__ import annotations

import random

import pytest

from services.cache.bounds import at_most, upper_bound
from services.cache.semantic import Entry, Shape, Trust, Verdict


def test_bounds_are_those_of_the_tables() -> None:
    assert upper_bound(0, 0) == 1.0
    assert upper_bound(0, 299) == pytest.approx(0.00997, abs=1e-4)
    assert upper_bound(1, 100) == pytest.approx(0.0466, abs=1e-3)
    assert upper_bound(5, 5) == 1.0
    assert at_most(0, 100, 0.01) == pytest.approx(0.366, abs=1e-3)
    assert at_most(3, 3, 0.5) == at_most(0, 10, 0.0) == 1.0
    assert at_most(1, 10, 1.0) == 0.0


def test_an_entry_learns_its_own_threshold() -> None:
    shape, easy, hard = Shape(0.85, 40.0), Entry(), Entry()
    before = easy.score(0.85, shape)
    for number in range(20):
        easy.observe(0.75 + number / 100, True)
        hard.observe(0.85 + number / 200, False)
    assert easy.score(0.85, shape) < before < hard.score(0.85, shape)
    assert hard.score(0.99, shape) < hard.score(0.90, shape), "more similar is never worse"


def test_what_is_uncertain_scores_worse_than_what_is_known() -> None:
    shape, fresh, known = Shape(0.80, 40.0), Entry(), Entry()
    for _ in range(40):
        known.observe(0.79, True)
        known.observe(0.81, False)
    assert known.score(0.90, shape) < fresh.score(0.90, shape)


def test_no_hit_before_the_bound_is_shown() -> None:
    trust, entry = Trust(0.01), Entry()
    for _ in range(250):
        verdict, _ = trust.decide(entry, 0.999, 0.5)
        assert verdict is Verdict.EXPLORE
        trust.observe(entry, 0.999, True, audited=False)


def test_the_bound_is_kept_on_a_world_of_entries_that_differ() -> None:
    """Entries with thresholds of their own; similarities drawn at random; right where they pass the threshold."""
    rng, delta = random.Random(3), 0.05
    trust = Trust(delta)
    entries = [(Entry(), rng.gauss(0.85, 0.04)) for _ in range(25)]
    hits = wrong = audits = 0
    for _ in range(2500):
        entry, threshold = rng.choice(entries)
        similarity = rng.uniform(0.6, 1.0)
        right = similarity + rng.gauss(0, 0.01) > threshold
        verdict, _ = trust.decide(entry, similarity, rng.random())
        if verdict is Verdict.HIT:
            hits += 1
            wrong += not right
        else:
            audits += verdict is Verdict.AUDIT
            trust.observe(entry, similarity, right, audited=verdict is Verdict.AUDIT)
    assert hits > 300
    assert wrong / hits <= delta
    rate, bound = trust.false_hits()
    assert trust.num_audited == audits
    assert rate <= bound <= 1.0


def test_a_world_that_turns_wrong_takes_the_hits_back() -> None:
    trust, entry, rng = Trust(0.05), Entry(), random.Random(4)
    for _ in range(400):
        verdict, _ = trust.decide(entry, 0.95, rng.random())
        if verdict is not Verdict.HIT:
            trust.observe(entry, 0.95, True, audited=verdict is Verdict.AUDIT)
    assert trust.decide(entry, 0.95, 0.9)[0] is Verdict.HIT
    for _ in range(60):
        verdict, _ = trust.decide(entry, 0.95, 0.0)
        trust.observe(entry, 0.95, False, audited=verdict is Verdict.AUDIT)
    assert trust.decide(entry, 0.95, 0.9)[0] is Verdict.EXPLORE


def test_a_bound_is_a_share() -> None:
    for delta in (0.0, 1.0, -1.0):
        with pytest.raises(ValueError, match="bound"):
            Trust(delta)
