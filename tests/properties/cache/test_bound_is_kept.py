"""The bound on wrong hits, over many simulated tenants whose truth is known.

1. Of 95% of tenants or more, at most a share `delta` of the hits is wrong; over all of them together it is less.
2. That does not rest on the score: where similarity says nothing of who is right, there are hardly any hits.
3. Neither does it on entries being alike: their thresholds may differ as they like.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from services.cache.semantic import Entry, Trust, Verdict

TENANTS, REQUESTS, DELTA = 6, 700, 0.05
Draw = Callable[[random.Random, float], tuple[float, bool]]
"""A question to an entry of that own threshold: how similar, and is the entry's answer right?"""


def alike(rng: random.Random, threshold: float) -> tuple[float, bool]:
    """The nearer the likelier right, about the entry's own threshold."""
    similarity = rng.uniform(0.7, 1.0)
    return similarity, similarity + rng.gauss(0.0, 0.02) > threshold


def noisy(rng: random.Random, threshold: float) -> tuple[float, bool]:
    """As above, but 2% are wrong however near they are: no score can tell those."""
    similarity, right = alike(rng, threshold)
    return similarity, right and rng.random() > 0.02


def blind(rng: random.Random, threshold: float) -> tuple[float, bool]:
    """Similarity says nothing, and more are wrong than is allowed."""
    return rng.uniform(0.7, 1.0), rng.random() > 2 * DELTA


def live(seed: int, draw: Draw) -> tuple[int, int]:
    """(hits, wrong hits) of one tenant's life."""
    rng, trust = random.Random(seed), Trust(DELTA)
    entries = [(Entry(), rng.gauss(0.82, 0.05)) for _ in range(20)]
    hits = wrong = 0
    for _ in range(REQUESTS):
        entry, threshold = rng.choice(entries)
        similarity, right = draw(rng, threshold)
        verdict, _ = trust.decide(entry, similarity, rng.random())
        if verdict is Verdict.HIT:
            hits += 1
            wrong += not right
        else:
            trust.observe(entry, similarity, right, audited=verdict is Verdict.AUDIT)
    return hits, wrong


@pytest.mark.parametrize(("draw", "hit_rate"), [(alike, 0.2), (noisy, 0.01)])
def test_the_bound_is_kept_of_tenant_after_tenant(draw: Draw, hit_rate: float) -> None:
    lives = [live(seed, draw) for seed in range(TENANTS)]
    beyond = sum(wrong > DELTA * hits for hits, wrong in lives)
    assert beyond <= 0.05 * TENANTS + 1, lives
    assert sum(wrong for _, wrong in lives) < DELTA * sum(hits for hits, _ in lives)
    assert sum(hits for hits, _ in lives) > hit_rate * TENANTS * REQUESTS, (
        "and there is something to keep it of"
    )


def test_a_score_that_knows_nothing_gives_hardly_any_hits() -> None:
    hits = [live(seed, blind)[0] for seed in range(TENANTS)]
    assert sum(hits) < 0.05 * TENANTS * REQUESTS, hits
