"""A band that wants short steps (`max_slowdown`), over whole runs on a virtual clock. Engines whose steps grow with the
batch: 10 ms and 1.5 ms per stream, 34 ms when all 16 slots are taken.

1. Beside 3x and 10x batch overload VIPs wait about as long as alone (p99 ≤ 1.2x); without the bound they do not.
2. It costs what it must and no more: the engines work on, at the batch that the bound allows.
3. Where the band has no traffic it costs nothing, and soon after its last request nothing any more.
4. The band itself is never held back by it: VIPs alone fill all slots.
5. So it is on an engine with steps and chunked prefill, whose batch hides by its own ups and downs how steps grow.
"""

from __future__ import annotations

import random

import pytest

from load_tests.bench.queue_steps import play
from services.config import DEFAULT_BANDS, QueueConfig
from services.experts.sim_model import SimTiming
from services.queue.calm import LATELY_S
from tests.simulation.queue_world import Job, SimEngineHost, World, quantile

START_S = 1001.0
SLOTS = 16
ALONE_S, STREAM_S = 0.010, 0.0015
PER_S = SLOTS / (40 * (ALONE_S + SLOTS * STREAM_S))
"""Requests per second of one full engine."""


def world(max_slowdown: float) -> World:
    vip, *others = DEFAULT_BANDS
    bands = (vip.model_copy(update={"max_slowdown": max_slowdown}), *others)
    return World(
        QueueConfig(bands=bands), 2, [SimEngineHost("e0", SLOTS, ALONE_S, 20_000.0, stream_s=STREAM_S)]
    )


def offer(mesh: World, seed: int, load: float, from_s: float, until_s: float, band: str) -> list[Job]:
    rng, when_s, jobs = random.Random(seed), START_S + from_s, []
    while (when_s := when_s + rng.expovariate(PER_S * load)) < START_S + until_s:
        jobs.append(mesh.submit(when_s, rng.randrange(2), band, band, 20, rng.randrange(10, 71)))
    return jobs


def tokens_per_s(mesh: World, from_s: float, until_s: float) -> float:
    mesh.run_until(START_S + from_s)
    before = mesh.engines["e0"].tokens_total
    mesh.run_until(START_S + until_s)
    return (mesh.engines["e0"].tokens_total - before) / (until_s - from_s)


def p99_s(jobs: list[Job], from_s: float) -> float:
    return quantile([job.ttft_s for job in jobs if job.arrived_s >= START_S + from_s], 0.99)


@pytest.mark.parametrize("overload", [3.0, 10.0])
def test_1_and_2_vips_wait_as_long_as_alone(overload: float) -> None:
    seen: dict[str, tuple[float, float]] = {}
    for name, load, bound in (("alone", 0.0, 0.0), ("full", overload, 0.0), ("calm", overload, 1.15)):
        mesh = world(bound)
        if load:
            offer(mesh, 2, load, 0.0, 20.0, "batch")
        vips = offer(mesh, 1, 0.1, 2.0, 20.0, "vip")
        rate = tokens_per_s(mesh, 6.0, 20.0)
        mesh.run_until(START_S + 200.0)
        assert all(job.outcome == "completed" for job in vips)
        seen[name] = p99_s(vips, 6.0), rate
    assert seen["calm"][0] <= 1.2 * seen["alone"][0], seen
    assert seen["full"][0] >= 1.5 * seen["alone"][0], "or the bound has nothing to do here"
    least = 1 + 0.15 * (ALONE_S + STREAM_S) / STREAM_S
    assert seen["calm"][1] >= 0.9 * int(least) / (ALONE_S + int(least) * STREAM_S)


def test_3_without_traffic_of_the_band_it_costs_nothing() -> None:
    bound, free = world(1.15), world(0.0)
    for mesh in (bound, free):
        offer(mesh, 2, 3.0, 0.0, 30.0, "batch")
    vips = offer(bound, 1, 0.2, 4.0, 5.0, "vip")
    assert vips
    assert tokens_per_s(bound, 2.0, 4.0) == tokens_per_s(free, 2.0, 4.0)
    assert tokens_per_s(bound, 5.0, 10.0) < 0.8 * tokens_per_s(free, 5.0, 10.0)
    over_s = 5.0 + LATELY_S + 1.0
    assert tokens_per_s(bound, over_s, 30.0) >= 0.98 * tokens_per_s(free, over_s, 30.0)


def test_4_the_band_itself_fills_all_slots() -> None:
    mesh = world(1.15)
    offer(mesh, 1, 3.0, 0.0, 10.0, "vip")
    assert tokens_per_s(mesh, 3.0, 10.0) >= 0.95 * SLOTS / (ALONE_S + SLOTS * STREAM_S)


def test_5_on_an_engine_with_steps_and_prompts() -> None:
    timing = SimTiming(
        step_s=0.0153, step_per_seq_s=0.0014, prefill_tokens_per_s=6450.0, max_num_seqs=8, prefix_cache=False
    )
    alone, full, calm = (
        play(timing, load, bound, 45.0) for load, bound in ((0.0, 0.0), (3.0, 0.0), (3.0, 1.45))
    )
    assert full.p99 >= 1.4 * alone.p99
    assert calm.p99 <= 0.9 * full.p99
    assert calm.p50 <= 0.9 * full.p50
    assert 0.5 * full.tokens_per_s <= calm.tokens_per_s <= 0.9 * full.tokens_per_s
    for seen in (full, calm):
        assert 0 < seen.paused == seen.whole
