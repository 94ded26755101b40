"""Capacity planning and calibration: what a user types, and that the figures follow the machines."""

from __future__ import annotations

import pytest

from services.errors import ConfigError
from services.experts.sim_model import SimTiming
from services.twin.calibrate import Calibrated, StepSample, calibrate, predicted_s, stamped
from services.twin.plan import Slo, TraceRow, parse_pools, parse_trace, percentile, plan

SLOW = SimTiming(step_s=0.05, max_num_seqs=2, prefill_tokens_per_s=2_000, max_model_len=4_096)


def trace(num: int, every_s: float) -> list[TraceRow]:
    return [TraceRow(i * every_s, 40, 20, "ab"[i % 2], "standard") for i in range(num)]


def test_more_machines_serve_better_and_cost_more() -> None:
    rows = trace(24, 0.1)
    small, large = (plan(rows, parse_pools(f"gpu={n}@3.6", {"gpu": SLOW}), Slo(0.5, 0.1)) for n in (1, 6))
    assert small.requests == large.requests == 24
    assert small.bands[0].completed == large.bands[0].completed == 24
    assert large.bands[0].ttft_p99_s < small.bands[0].ttft_p99_s
    assert large.goodput_per_s > small.goodput_per_s
    assert large.pools[0].filled_share < small.pools[0].filled_share
    per_hour = large.pools[0].cost / large.duration_s * 3600
    assert per_hour == pytest.approx(6 * 3.6)


def test_tokens_and_money_add_up_over_pools() -> None:
    report = plan(trace(10, 0.2), parse_pools("a=1@2,b=1@1", {"default": SLOW}), Slo())
    assert sum(pool.tokens for pool in report.pools) == 200
    assert report.cost == pytest.approx(sum(pool.cost for pool in report.pools))
    assert report.output_tokens_per_s * report.duration_s == pytest.approx(200)


def test_a_plan_is_repeatable() -> None:
    rows, pools = trace(8, 0.1), parse_pools("spot=2@1!100", {"spot": SLOW})
    assert plan(rows, pools, Slo(), seed=3) == plan(rows, pools, Slo(), seed=3)


@pytest.mark.parametrize("text", ["", "gpu", "gpu=0@1", "gpu=1@x", "gpu=1@1!", "gpu=-1@2"])
def test_pools_that_make_no_sense(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_pools(text, {})


@pytest.mark.parametrize(
    "line",
    ["{", '{"at_s": 1}', '{"at_s": -1, "prompt_tokens": 1, "output_tokens": 1}',
     '{"at_s": 1, "prompt_tokens": 0, "output_tokens": 1}',
     '{"at_s": 1, "prompt_tokens": 1, "output_tokens": 1, "band": "gold"}',
     '{"at_s": 1, "prompt_tokens": 1, "output_tokens": 1, "cost": 1}'],
)  # fmt: skip
def test_traces_that_make_no_sense_are_refused_by_line(line: str) -> None:
    with pytest.raises(ConfigError, match="line 2"):
        parse_trace(['{"at_s": 0, "prompt_tokens": 1, "output_tokens": 1}', line])


def test_a_trace_is_sorted_and_may_not_be_empty() -> None:
    rows = parse_trace([b'{"at_s": 2, "prompt_tokens": 1, "output_tokens": 1}', b"",
                        b'{"at_s": 1, "prompt_tokens": 1, "output_tokens": 1, "band": "vip"}'])  # fmt: skip
    assert [row.at_s for row in rows] == [1, 2]
    with pytest.raises(ConfigError, match="empty"):
        parse_trace([])


def test_calibration_finds_the_timing_that_made_the_samples() -> None:
    truth = SimTiming(step_s=0.02, step_per_seq_s=0.0015, prefill_tokens_per_s=8_000)
    shapes = [(n, p) for n in (0, 1, 4, 16) for p in (0, 64, 512)]
    samples = [StepSample(n, p, predicted_s(truth, StepSample(n, p, 0.0))) for n, p in shapes]
    fit = calibrate(samples, SimTiming(max_num_seqs=99))
    assert fit.max_error < 1e-6 and fit.timing.max_num_seqs == 99
    assert fit.timing.step_s == pytest.approx(0.02) and fit.timing.step_per_seq_s == pytest.approx(0.0015)
    assert fit.timing.prefill_tokens_per_s == pytest.approx(8_000)


def test_calibration_shows_its_error_and_never_goes_negative() -> None:
    samples = [StepSample(n, 0, 0.05 - 0.001 * n) for n in range(1, 9)]  # quicker with more streams: noise
    fit = calibrate(samples)
    assert fit.timing.step_per_seq_s == 0.0 and fit.timing.step_s > 0 and 0 < fit.mean_error < 0.1
    with pytest.raises(ConfigError, match="samples"):
        calibrate(samples[:2])


def test_percentiles_are_ranks() -> None:
    assert (
        percentile([3.0, 1.0, 2.0], 0.5) == 2.0
        and percentile([1.0, 2.0], 0.99) == 2.0
        and percentile([], 0.5) == 0
    )


def test_a_plan_tells_how_far_its_engines_are_off() -> None:
    samples = [StepSample(n, 0, 0.01 + 0.001 * n + 0.001 * (n % 2)) for n in range(1, 20)]
    timing = stamped(calibrate(samples, SLOW))
    assert isinstance(timing, Calibrated) and 0 < timing.mean_error < timing.max_error < 0.2
    fitted, assumed = plan(trace(4, 0.1), parse_pools("a=1@1,b=1@1", {"a": timing, "b": SLOW}), Slo()).pools
    assert (fitted.calibration_samples, fitted.calibration_mean_error) == (19, timing.mean_error)
    assert assumed.calibration_samples == 0
