"""Confidence: how likely the model itself thinks its answer is, as a calibrated number from 0 to 1.

Rules: pure. The raw score of an answer of n tokens with log-probabilities l₁ … lₙ is the geometric mean of
their probabilities, p = exp((l₁ + … + lₙ) / n), length-normalised so that long answers are not doomed. Models
are over- confident, and each in its own way, so the score shown is p passed through Platt's map fitted on
answers known to be right or wrong (Platt 1999; Lin, Lin & Weng 2007):

    confidence = 1 / (1 + exp(-(slope · ln(p / (1 - p)) + intercept)))

Slope 1 and intercept 0, the default, show p itself: a measure to rank answers by, not a promise. After `fit`
on enough answers, of those shown with 0.8 about 80% are right; `calibration_error` tells how far off that is.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log

import msgspec

_FLOOR = -50.0
"""No token counts as less likely than e⁻⁵⁰; engines report -inf, and NaN when they break."""
_NEAR = 1e-9


class Calibration(msgspec.Struct, frozen=True):
    """Platt's map from raw scores to probabilities of being right."""

    slope: float = 1.0
    intercept: float = 0.0

    def __call__(self, raw: float) -> float:
        """The calibrated score of `raw`; both in [0, 1]."""
        if self.slope == 1.0 and self.intercept == 0.0:
            return min(max(raw, 0.0), 1.0)
        return _sigmoid(self.slope * _logit(raw) + self.intercept)


class Confidence:
    """Score of one answer while it comes. Costs an addition per token."""

    __slots__ = ("_calibration", "_count", "_total")

    def __init__(self, calibration: Calibration) -> None:
        self._calibration = calibration
        self._total = 0.0
        self._count = 0

    def add(self, logprob: float) -> None:
        """One sampled token's natural-log probability."""
        self._total += min(logprob, 0.0) if logprob > _FLOOR else _FLOOR
        self._count += 1

    def value(self) -> float:
        """Confidence so far, in [0, 1]; 0 for an answer without tokens."""
        return self._calibration(exp(self._total / self._count)) if self._count else 0.0


def fit(scores: Sequence[float], right: Sequence[bool]) -> Calibration:
    """The map that makes `scores` most likely given which answers were `right`, by Newton's method on the two
    parameters, with Platt's smoothed targets (so separable data do not run off to infinity).

    Raises ValueError when there is not at least one right and one wrong answer."""
    hits, misses = sum(right), len(right) - sum(right)
    if not hits or not misses or len(scores) != len(right):
        raise ValueError("calibrating needs one score per answer, with right and wrong ones among them")
    xs = [_logit(score) for score in scores]
    targets = [(hits + 1) / (hits + 2) if is_right else 1 / (misses + 2) for is_right in right]
    slope, intercept = 0.0, log((hits + 1) / (misses + 1))
    loss = _loss(xs, targets, slope, intercept)
    for _ in range(100):
        step_slope, step_intercept = _newton_step(xs, targets, slope, intercept)
        size = 1.0
        while size > 1e-10:
            tried = slope + size * step_slope, intercept + size * step_intercept
            tried_loss = _loss(xs, targets, *tried)
            if tried_loss < loss:
                break
            size /= 2
        else:
            break
        gained, loss, (slope, intercept) = loss - tried_loss, tried_loss, tried
        if gained < 1e-12 * len(xs):
            break
    return Calibration(slope, intercept)


def calibration_error(scores: Sequence[float], right: Sequence[bool], *, bins: int = 10) -> float:
    """Expected calibration error: mean distance between shown score and share of right answers, over equal
    bins of [0, 1] weighted by how many answers each holds (Naeini et al. 2015)."""
    groups: list[list[tuple[float, bool]]] = [[] for _ in range(bins)]
    for score, is_right in zip(scores, right, strict=True):
        groups[min(int(score * bins), bins - 1)].append((score, is_right))
    distances = (abs(sum(score - is_right for score, is_right in group)) for group in groups)
    return sum(distances) / max(1, len(scores))


def _newton_step(
    xs: Sequence[float], targets: Sequence[float], slope: float, intercept: float
) -> tuple[float, float]:
    h_ss, h_si, h_ii = 1e-9, 0.0, 1e-9
    g_s = g_i = 0.0
    for x, target in zip(xs, targets, strict=True):
        p = _sigmoid(slope * x + intercept)
        weight = p * (1 - p)
        h_ss, h_si, h_ii = h_ss + x * x * weight, h_si + x * weight, h_ii + weight
        g_s, g_i = g_s + x * (p - target), g_i + p - target
    det = h_ss * h_ii - h_si * h_si or 1e-12
    return -(h_ii * g_s - h_si * g_i) / det, -(h_ss * g_i - h_si * g_s) / det


def _loss(xs: Sequence[float], targets: Sequence[float], slope: float, intercept: float) -> float:
    total = 0.0
    for x, target in zip(xs, targets, strict=True):
        z = slope * x + intercept
        total += (log(1 + exp(-abs(z))) + max(z, 0.0)) - target * z
    return total


def _logit(p: float) -> float:
    p = min(max(p, _NEAR), 1 - _NEAR)
    return log(p / (1 - p))


def _sigmoid(z: float) -> float:
    return 1 / (1 + exp(-z)) if z >= 0 else exp(z) / (1 + exp(z))
