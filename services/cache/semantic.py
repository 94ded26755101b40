"""When may a similar question be answered from the cache? Pure: similarities and verified outcomes in, verdicts out.

Rules: knows numbers, and nothing of texts, embeddings or stores. The bound is the tenant's: of the hits that are
given, at most a share `delta` may be wrong.

After vCache (Schroeder et al., "vCache: Verified Semantic Prompt Caching", ICLR 2026): no static threshold fits all
entries, so each entry learns its own from verified outcomes (similarity, was its answer right?): P(right | s) =
sigmoid(gain · (s - threshold)). Until a hit is certain enough the model is asked, and the outcome is learned
(exploration). Three changes:

1. Most entries are asked a few times only, and vCache fits each alone. Here an entry's threshold is drawn towards
   the tenant's (a normal prior around the pooled fit, as wide as the tenant's outcomes make likely), and its
   uncertainty goes into the score: the predictive probability of a wrong answer, averaged over what the threshold may
   be.
2. The score only ranks. What score is good enough comes from the tenant's own verified outcomes, the best ones first:
   as many as a binomial test at 95% needs at least, then a tenth more at a time, until the test no longer shows that at
   most `delta` of them are wrong (fixed-sequence testing, "Learn then Test", Angelopoulos et al. 2021). So the bound
   does not rest on the model of 1, and no hit is given before about 3/delta outcomes were verified. Outcomes are
   ranked anew by each fit, each by what its entry had learned *before* it: what was verified while little was known
   counts in full, and no outcome vouches for itself.
3. vCache spends its bound over all requests, by giving uncertain hits at random. Here every hit is under the bound.

A share `audit` of certain hits is verified all the same: drift is seen, and the false-hit rate has an unbiased
estimate with its bound.
"""

from __future__ import annotations

import math
from collections import deque
from enum import Enum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .bounds import at_most, upper_bound

CONFIDENCE = 0.95
RUNG = 1.1
"""How many more outcomes each test of the sequence takes in. Of 1.03, 1.1 and 1.3 none gave notably more hits; steps in
the score instead of in outcomes gave 7% fewer."""
REFIT_EVERY = 50
MAX_OBSERVED = 64
SPREADS = (0.5, 2.0)
"""Are a tenant's entries alike or not? What its outcomes make likelier: the first on FAQ streams behind the guards (13%
more hits there), the second in a world of entries that differ (37% more)."""
POOL_SIZE = 8192
FIT_SIZE = 2048
_CENTRE = 0.85
_MACKAY = math.pi / 8.0
"""The integral of a logistic over a normal threshold is nearly a flatter logistic (MacKay 1992)."""

Floats = NDArray[np.float64]


class Verdict(Enum):
    """HIT: answer from the cache. AUDIT: certain, but ask the model and compare. EXPLORE: uncertain, so ask the model
    and compare. MISS: nothing comparable is kept."""

    HIT = "hit"
    AUDIT = "audit"
    EXPLORE = "explore"
    MISS = "miss"


class Shape(NamedTuple):
    """A tenant's pooled fit. Before anything is known, only nearly the same text is likely right."""

    threshold: float = 0.98
    gain: float = 60.0
    spread: float = 0.5

    @property
    def width(self) -> float:
        """How far entries' thresholds lie from the tenant's (standard deviation): `spread`, in proportion to its
        slope."""
        return self.spread / self.gain


class Place(NamedTuple):
    """An entry's threshold beside the tenant's, and how uncertain it is; both in the shape's widths."""

    offset: float = 0.0
    deviation: float = 1.0


class Entry:
    """What one kept answer has learned about its threshold."""

    __slots__ = ("_places", "_seen")

    def __init__(self) -> None:
        self._seen: deque[tuple[float, bool]] = deque(maxlen=MAX_OBSERVED)
        self._places: dict[Shape, Place] = {}

    def observe(self, similarity: float, right: bool) -> None:
        """One verified outcome of this entry."""
        self._seen.append((similarity, right))
        self._places.clear()

    def place(self, shape: Shape) -> Place:
        """The threshold's posterior mode by Newton's method (concave, bounded steps), its deviation by Laplace."""
        if not self._seen:
            return Place()
        place = self._places.get(shape)
        if place is None:
            if len(self._places) == len(SPREADS):  # of an earlier fit
                self._places.clear()
            place = self._places[shape] = self._fit(shape)
        return place

    def score(self, similarity: float, shape: Shape) -> float:
        """The predictive probability that this entry's answer is wrong at `similarity`."""
        offset, deviation = self.place(shape)
        steep = shape.gain / math.sqrt(1.0 + _MACKAY * (shape.gain * shape.width * deviation) ** 2)
        return _sigmoid(-steep * (similarity - shape.threshold - offset * shape.width))

    def _fit(self, shape: Shape) -> Place:
        threshold, precision = shape.threshold, 1.0 / shape.width**2
        curvature = precision
        for _ in range(15):
            slope, curvature = -precision * (threshold - shape.threshold), precision
            for similarity, right in self._seen:
                likely = _sigmoid(shape.gain * (similarity - threshold))
                slope += shape.gain * (likely - right)
                curvature += shape.gain**2 * likely * (1.0 - likely)
            step = max(-shape.width, min(shape.width, slope / curvature))
            threshold += step
            if abs(step) < 1e-7:
                break
        return Place((threshold - shape.threshold) / shape.width, curvature**-0.5 / shape.width)


def scores(shape: Shape, similarity: Floats, offset: Floats, deviation: Floats) -> Floats:
    """As Entry.score, for many."""
    steep = shape.gain / np.sqrt(1.0 + _MACKAY * (shape.gain * shape.width * deviation) ** 2)
    exponent = steep * (similarity - shape.threshold - offset * shape.width)
    return 1.0 / (1.0 + np.exp(np.clip(exponent, -700.0, 700.0)))


class Trust:
    """One tenant's verified outcomes, and what they allow. `delta` is the tenant's bound on wrong hits (0, 1)."""

    def __init__(self, delta: float, *, audit: float = 0.05) -> None:
        if not 0.0 < delta < 1.0:
            raise ValueError(f"a bound on wrong hits lies between 0 and 1: {delta}")
        self.delta = delta
        self.shape = Shape()
        self.cutoff = 0.0
        self._audit = audit
        # similarity, right, and the entry's place before, as each spread has it
        self._pool: Floats = np.zeros((2 + 2 * len(SPREADS), POOL_SIZE))
        self.num_verified = 0
        self._since_refit = 0
        self.num_audited = self.num_wrong = 0

    def decide(self, entry: Entry, similarity: float, chance: float) -> tuple[Verdict, float]:
        """The verdict and the entry's score. `chance` is uniform in [0, 1)."""
        score = entry.score(similarity, self.shape)
        if score > self.cutoff:
            return Verdict.EXPLORE, score
        return (Verdict.AUDIT if chance < self._audit else Verdict.HIT), score

    def observe(self, entry: Entry, similarity: float, right: bool, *, audited: bool) -> None:
        """The model was asked, and its answer compared with the entry's. A millisecond where it fits anew."""
        places = [at for spread in SPREADS for at in entry.place(self.shape._replace(spread=spread))]
        at_fault = not right and entry.score(similarity, self.shape) <= self.cutoff
        self._pool[:, self.num_verified % POOL_SIZE] = similarity, right, *places
        self.num_verified += 1
        entry.observe(similarity, right)
        if audited:
            self.num_audited += 1
            self.num_wrong += not right
        self._since_refit += 1
        if self._since_refit >= min(REFIT_EVERY, 1 + self.num_verified // 8) or at_fault:
            self._since_refit = 0
            self._refit()

    def false_hits(self) -> tuple[float, float]:
        """The estimated share of wrong hits, and its upper 95% bound, from audits."""
        if not self.num_audited:
            return 0.0, 1.0
        return self.num_wrong / self.num_audited, upper_bound(self.num_wrong, self.num_audited)

    def _refit(self) -> None:
        size = min(self.num_verified, POOL_SIZE)
        order = np.arange(self.num_verified - size, self.num_verified) % POOL_SIZE
        similarity, right, *places = self._pool[:, order]
        pooled = _pooled(similarity[-FIT_SIZE:], right[-FIT_SIZE:])
        shapes = [pooled._replace(spread=spread) for spread in SPREADS]
        ranked = [scores(shape, similarity, *places[2 * n : 2 * n + 2]) for n, shape in enumerate(shapes)]
        likely = [float(np.log(np.where(right > 0, 1.0 - score, score) + 1e-12).sum()) for score in ranked]
        best = int(np.argmax(likely))
        self.shape = shapes[best]
        self.cutoff = climb(ranked[best], right, self.delta)


def climb(score: Floats, right: Floats, delta: float) -> float:
    """The highest score up to which every test passes, from the first that has enough outcomes to pass at all (how many
    there are says nothing about how many are right); 0.0 where none does. `right`: 1.0 or 0.0."""
    order = np.argsort(score, kind="stable")
    ranked, wrong = score[order], np.cumsum(1.0 - right[order])
    num, allowed = enough(delta), 0.0
    while num <= len(ranked):
        if at_most(int(wrong[num - 1]), num, delta) > 1.0 - CONFIDENCE:
            break
        allowed = float(ranked[num - 1])
        num = int(num * RUNG) + 1
    return allowed


def enough(delta: float) -> int:
    """How many outcomes, all of them right, show that at most `delta` are wrong: some 3/delta."""
    return math.ceil(math.log(1.0 - CONFIDENCE) / math.log1p(-delta))


def _pooled(similarity: Floats, right: Floats) -> Shape:
    """Threshold and gain of all outcomes together: logistic regression by Newton's method with bounded steps. A weak
    normal prior (gain 60 ± 60, offset 0 ± 5 at `_CENTRE`) keeps it finite while all outcomes agree."""
    offset, gain, x = 0.0, 60.0, similarity - _CENTRE
    for _ in range(25):
        likely = 1.0 / (1.0 + np.exp(np.clip(-(offset + gain * x), -700.0, 700.0)))
        weight, error = likely * (1.0 - likely), right - likely
        g0 = float(error.sum()) - offset / 25.0
        g1 = float((error * x).sum()) - (gain - 60.0) / 3600.0
        h00 = float(weight.sum()) + 1.0 / 25.0
        h01 = float((weight * x).sum())
        h11 = float((weight * x * x).sum()) + 1.0 / 3600.0
        determinant = h00 * h11 - h01 * h01
        step0 = max(-2.0, min(2.0, (h11 * g0 - h01 * g1) / determinant))
        step1 = max(-20.0, min(20.0, (h00 * g1 - h01 * g0) / determinant))
        offset, gain = offset + step0, max(5.0, gain + step1)
        if abs(step0) < 1e-4 and abs(step1) < 1e-3:
            break
    return Shape(_CENTRE - offset / gain, gain)


def _sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x)) if x > -700.0 else 0.0
