"""Confidence: the raw score, calibration, and what broken engines do to it."""

from __future__ import annotations

import random
from math import exp, inf, log, nan

import pytest

from services.postprocess.confidence import Calibration, Confidence, calibration_error, fit


def score(*logprobs: float, calibration: Calibration | None = None) -> float:
    confidence = Confidence(calibration or Calibration())
    for logprob in logprobs:
        confidence.add(logprob)
    return confidence.value()


def test_the_raw_score_is_the_geometric_mean_of_the_probabilities() -> None:
    assert score(log(0.5), log(0.125)) == pytest.approx(0.25)
    assert score(log(0.9)) == pytest.approx(0.9)
    assert score(*[log(0.9)] * 500) == pytest.approx(0.9)  # long answers are not doomed


def test_no_tokens_no_confidence() -> None:
    assert score() == 0.0


@pytest.mark.parametrize("broken", [-inf, nan, -1e9])
def test_impossible_tokens_count_as_very_unlikely(broken: float) -> None:
    assert 0.0 < score(0.0, broken) < 1e-9
    assert score(0.5) == 1.0  # rounding above zero


def test_calibrating_overconfident_scores_makes_them_mean_what_they_say() -> None:
    rng = random.Random(5)
    chances = [rng.uniform(0.05, 0.95) for _ in range(3000)]
    right = [rng.random() < chance for chance in chances]
    shown = [1 / (1 + exp(-(2.5 * log(chance / (1 - chance)) + 1))) for chance in chances]  # overconfident
    calibration = fit(shown, right)
    calibrated = [calibration(one) for one in shown]
    assert calibration_error(shown, right) > 0.1
    assert calibration_error(calibrated, right) < 0.03
    assert calibration.slope == pytest.approx(1 / 2.5, rel=0.15)
    assert sorted(calibrated) == [calibration(one) for one in sorted(shown)]  # the order stays


def test_separable_answers_do_not_run_off_to_infinity() -> None:
    calibration = fit([0.1, 0.2, 0.8, 0.9], [False, False, True, True])
    assert 0 < calibration(0.05) < 0.5 < calibration(0.95) < 1


def test_extremes_stay_within_bounds() -> None:
    steep = Calibration(50.0, -3.0)
    assert 0.0 <= steep(0.0) < steep(1.0) <= 1.0


def test_calibrating_needs_both_kinds() -> None:
    with pytest.raises(ValueError, match="right and wrong"):
        fit([0.5, 0.6], [True, True])
