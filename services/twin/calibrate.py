"""Timing of the simulated engine from measurements of a real one, with the error of the fit. Pure.

Rules: samples in, a SimTiming and an error out; knows no engine. The model is the simulated engine's own
(services/experts/sim_model.py): step_s = base + per_seq · streams + prefill_tokens / prefill_rate.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ..errors import ConfigError
from ..experts.sim_model import SimTiming

MIN_SAMPLES = 3


class StepSample(msgspec.Struct, frozen=True):
    """One engine step, or the mean of like ones: streams that decoded, prompt tokens computed, seconds."""

    streams: int
    prefill_tokens: int
    step_s: float


class Calibrated(SimTiming, frozen=True):
    """A timing that knows how far it is off from the `num_samples` real steps it was fitted to (0: from none)."""

    mean_error: float = 0.0
    max_error: float = 0.0
    num_samples: int = 0


class Calibration(msgspec.Struct, frozen=True):
    """The fit and how far it is off: mean and largest relative error over the samples."""

    timing: SimTiming
    mean_error: float
    max_error: float
    num_samples: int


def calibrate(samples: Sequence[StepSample], like: SimTiming | None = None) -> Calibration:
    """Fit the three numbers by least squares on the relative error (a slow step must not outweigh a hundred quick
    ones); everything else is as in `like`. Coefficients are not negative. Raises ConfigError without enough samples."""
    usable = [sample for sample in samples if sample.step_s > 0]
    if len(usable) < MIN_SAMPLES:
        raise ConfigError(f"{len(usable)} usable samples; at least {MIN_SAMPLES} are needed")
    columns = [0, 1, 2]
    while True:
        weights = _solve(usable, columns)
        worst = min(columns, key=lambda column: weights[column])
        if weights[worst] >= 0 or len(columns) == 1:
            break
        columns.remove(worst)  # a negative cost is noise: leave that term out
    base_s, per_seq_s, per_token_s = (max(0.0, weight) for weight in weights)
    timing = msgspec.structs.replace(
        like or SimTiming(),
        step_s=base_s,
        step_per_seq_s=per_seq_s,
        prefill_tokens_per_s=1.0 / per_token_s if per_token_s > 0 else 1e9,
    )
    errors = [abs(predicted_s(timing, sample) - sample.step_s) / sample.step_s for sample in usable]
    return Calibration(timing, sum(errors) / len(errors), max(errors), len(usable))


def stamped(fit: Calibration) -> Calibrated:
    """The timing with its error, as `--timing` reads it."""
    return Calibrated(
        **msgspec.structs.asdict(fit.timing),
        mean_error=round(fit.mean_error, 4), max_error=round(fit.max_error, 4), num_samples=fit.num_samples,
    )  # fmt: skip


def predicted_s(timing: SimTiming, sample: StepSample) -> float:
    """What the simulated engine would take for the sample's step."""
    prefill_s = sample.prefill_tokens / timing.prefill_tokens_per_s
    return timing.step_s + timing.step_per_seq_s * sample.streams + prefill_s


def _solve(samples: Sequence[StepSample], columns: list[int]) -> list[float]:
    """Weighted normal equations over the chosen columns, by Gauss; other weights are 0."""
    size = len(columns)
    matrix = [[0.0] * (size + 1) for _ in range(size)]
    for sample in samples:
        full = (1.0, float(sample.streams), float(sample.prefill_tokens))
        row = [full[column] / sample.step_s for column in columns]
        for i in range(size):
            for j in range(size):
                matrix[i][j] += row[i] * row[j]
            matrix[i][size] += row[i]
    for i in range(size):
        pivot = max(range(i, size), key=lambda r: abs(matrix[r][i]))
        matrix[i], matrix[pivot] = matrix[pivot], matrix[i]
        if abs(matrix[i][i]) < 1e-12:
            continue  # the samples do not vary in this column
        for r in range(size):
            if r != i:
                factor = matrix[r][i] / matrix[i][i]
                matrix[r] = [a - factor * b for a, b in zip(matrix[r], matrix[i], strict=True)]
    weights = [0.0, 0.0, 0.0]
    for i, column in enumerate(columns):
        weights[column] = matrix[i][size] / matrix[i][i] if abs(matrix[i][i]) >= 1e-12 else 0.0
    return weights
