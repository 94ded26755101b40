"""When may a similar question be answered from the cache? Pure: similarities and verified outcomes in, verdicts out.

Rules: knows numbers, and nothing of texts, embeddings or stores. The bound is the tenant's: of the hits that are
given, at most a share `delta` may be wrong.

After vCache (Schroeder et al., "vCache: Verified Semantic Prompt Caching", ICLR 2026): no static threshold fits all
entries, so each entry learns its own from verified outcomes (similarity, was its answer right?): P(right | s) =
sigmoid(gain · (s - threshold)). Until a hit is certain enough the model is asked, and the outcome is learned
(exploration). Three changes:

1. Most entries are asked a few times only, and vCache fits each alone. Here an entry's threshold is drawn towards
   the tenant's (a normal prior around the pooled fit), and its uncertainty goes into the score: the predictive
   probability of a wrong answer, averaged over what the threshold may be.
2. The score only ranks. What score is good enough comes from the tenant's own verified outcomes: the largest cutoff
   of a fixed ladder, climbed from below until a binomial test at 95% no longer shows that at most `delta` of the
   outcomes under it are wrong (fixed-sequence testing, "Learn then Test", Angelopoulos et al. 2021). So the bound
   does not rest on the model of 1, and no hit is given before about 3/delta outcomes were verified.
3. vCache spends its bound over all requests, by giving uncertain hits at random. Here every hit is under the bound.

A share `audit` of certain hits is verified all the same: drift is seen, and the false-hit rate has an unbiased
estimate with its bound.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from .bounds import at_most, upper_bound

LADDER = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2)
CONFIDENCE = 0.95
REFIT_EVERY = 50
MAX_OBSERVED = 64
POOL_SIZE = 8192
FIT_SIZE = 1024
_CENTRE = 0.85


class Verdict(Enum):
    """HIT: answer from the cache. AUDIT: certain, but ask the model and compare. EXPLORE: uncertain, so ask the model
    and compare. MISS: nothing comparable is kept."""

    HIT = "hit"
    AUDIT = "audit"
    EXPLORE = "explore"
    MISS = "miss"


class Outcome(NamedTuple):
    """One verification: the similarity, the score that the entry had then, and whether its answer was right."""

    similarity: float
    score: float
    right: bool


class Shape(NamedTuple):
    """A tenant's pooled fit. Before anything is known, only nearly the same text is likely right."""

    threshold: float = 0.98
    gain: float = 60.0

    @property
    def width(self) -> float:
        """How far entries' thresholds lie from the tenant's (standard deviation), in proportion to its slope."""
        return 2.0 / self.gain


class Entry:
    """What one kept answer has learned about its threshold."""

    __slots__ = ("_deviation", "_shape", "_threshold", "outcomes")

    def __init__(self) -> None:
        self.outcomes: deque[Outcome] = deque(maxlen=MAX_OBSERVED)
        self._shape: Shape | None = None
        self._threshold = self._deviation = 0.0

    def observe(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self._shape = None

    def score(self, similarity: float, shape: Shape) -> float:
        """The predictive probability that this entry's answer is wrong at `similarity` (MacKay's approximation of
        the integral over a normal threshold)."""
        if self._shape != shape:
            self._fit(shape)
        steep = shape.gain / math.sqrt(1.0 + math.pi * (shape.gain * self._deviation) ** 2 / 8.0)
        return _sigmoid(-steep * (similarity - self._threshold))

    def _fit(self, shape: Shape) -> None:
        """The threshold's posterior mode by Newton's method (concave, bounded steps), its deviation by Laplace."""
        threshold, precision = shape.threshold, 1.0 / shape.width**2
        curvature = precision
        for _ in range(15):
            slope, curvature = -precision * (threshold - shape.threshold), precision
            for similarity, _, right in self.outcomes:
                likely = _sigmoid(shape.gain * (similarity - threshold))
                slope += shape.gain * (likely - right)
                curvature += shape.gain**2 * likely * (1.0 - likely)
            step = max(-shape.width, min(shape.width, slope / curvature))
            threshold += step
            if abs(step) < 1e-7:
                break
        self._threshold, self._deviation, self._shape = threshold, curvature**-0.5, shape


class Trust:
    """One tenant's verified outcomes, and what they allow. `delta` is the tenant's bound on wrong hits (0, 1)."""

    def __init__(self, delta: float, *, audit: float = 0.05) -> None:
        if not 0.0 < delta < 1.0:
            raise ValueError(f"a bound on wrong hits lies between 0 and 1: {delta}")
        self.delta = delta
        self.shape = Shape()
        self.cutoff = 0.0
        self._audit = audit
        self._pool: deque[Outcome] = deque(maxlen=POOL_SIZE)
        self._since_refit = 0
        self.num_audited = self.num_wrong = 0

    def decide(self, entry: Entry, similarity: float, chance: float) -> tuple[Verdict, float]:
        """The verdict and the entry's score. `chance` is uniform in [0, 1)."""
        score = entry.score(similarity, self.shape)
        if score > self.cutoff:
            return Verdict.EXPLORE, score
        return (Verdict.AUDIT if chance < self._audit else Verdict.HIT), score

    def observe(self, entry: Entry, outcome: Outcome, *, audited: bool) -> None:
        """The model was asked, and its answer compared with the entry's."""
        entry.observe(outcome)
        self._pool.append(outcome)
        if audited:
            self.num_audited += 1
            self.num_wrong += not outcome.right
        self._since_refit += 1
        if self._since_refit >= REFIT_EVERY or (outcome.score <= self.cutoff and not outcome.right):
            self._since_refit = 0
            self.shape = _pooled(list(self._pool)[-FIT_SIZE:])
            self.cutoff = self._climb()

    def false_hits(self) -> tuple[float, float]:
        """The estimated share of wrong hits, and its upper 95% bound, from audits."""
        if not self.num_audited:
            return 0.0, 1.0
        return self.num_wrong / self.num_audited, upper_bound(self.num_wrong, self.num_audited)

    def _climb(self) -> float:
        """The highest rung up to which every rung passes its test, from the first that has enough outcomes to pass
        at all (how many there are says nothing about how many are right)."""
        allowed = 0.0
        for rung in LADDER:
            rights = [outcome.right for outcome in self._pool if outcome.score <= rung]
            if (1.0 - self.delta) ** len(rights) > 1.0 - CONFIDENCE:
                continue
            if at_most(rights.count(False), len(rights), self.delta) > 1.0 - CONFIDENCE:
                break
            allowed = rung
        return allowed


def _pooled(pool: Sequence[Outcome]) -> Shape:
    """Threshold and gain of all outcomes together: logistic regression by Newton's method with bounded steps. A weak
    normal prior (gain 60 ± 60, offset 0 ± 5 at `_CENTRE`) keeps it finite while all outcomes agree."""
    offset, gain = 0.0, 60.0
    for _ in range(25):
        g0, g1 = -offset / 25.0, -(gain - 60.0) / 3600.0
        h00, h01, h11 = 1.0 / 25.0, 0.0, 1.0 / 3600.0
        for similarity, _, right in pool:
            x = similarity - _CENTRE
            likely = _sigmoid(offset + gain * x)
            weight = likely * (1.0 - likely)
            g0 += right - likely
            g1 += (right - likely) * x
            h00 += weight
            h01 += weight * x
            h11 += weight * x * x
        determinant = h00 * h11 - h01 * h01
        step0 = max(-2.0, min(2.0, (h11 * g0 - h01 * g1) / determinant))
        step1 = max(-20.0, min(20.0, (h00 * g1 - h01 * g0) / determinant))
        offset, gain = offset + step0, max(5.0, gain + step1)
        if abs(step0) < 1e-4 and abs(step1) < 1e-3:
            break
    return Shape(_CENTRE - offset / gain, gain)


def _sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x)) if x > -700.0 else 0.0
