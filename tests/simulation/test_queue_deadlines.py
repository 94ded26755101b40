"""What becomes of work that may not end in time, over whole runs on a virtual clock.

Ten times more batch work than fits, for longer than its deadline, beside VIPs who pause it.

1. What is granted ends in time: no answer that completes does so after its deadline, but for a step or two.
2. What was paused completes, all of it, every token once.
3. None of this costs throughput: the engines are as busy as without deadlines.
4. Most of what is refused is refused at once; the rest when it is clear, before its deadline.
5. `Retry-After` is honest: who comes back then, and no earlier, meets a queue that takes it.
6. Knowledge that has become wrong is put right: after a slow hour nobody is refused for long.
7. What was paused completes in time on an engine that stalls twice a second, too, as long as stalls leave room for it.
"""

from __future__ import annotations

import random

import pytest

from services.config import QueueConfig
from tests.simulation.queue_world import Job, SimEngineHost, World

STEP_S = 0.02
SLOTS = 8
CAPACITY_PER_S = SLOTS / (40 * STEP_S)
START_S = 1001.0
PATIENCE_S = 6.0


def offer(
    world: World, seed: int, load: float, from_s: float, until_s: float, band: str, patience_s: float
) -> list[Job]:
    """Poisson arrivals at `load` times what one engine can do; answers of 10 to 70 tokens, as long as asked for."""
    rng, when_s, jobs = random.Random(seed), START_S + from_s, []
    while (when_s := when_s + rng.expovariate(CAPACITY_PER_S * load)) < START_S + until_s:
        output = rng.randrange(10, 71)
        jobs.append(world.submit(when_s, rng.randrange(2), f"{band}-{seed}", band, 100, output, patience_s))
    return jobs


def one_engine() -> list[SimEngineHost]:
    return [SimEngineHost("e0", SLOTS, STEP_S, 20_000.0)]


def overloaded() -> tuple[World, list[Job], list[Job], float]:
    """The world, its batch jobs, its VIPs, and the share of the slots that was busy from second 4 to 20."""
    world = World(QueueConfig(), 2, one_engine())
    batch = offer(world, 1, 10.0, 0.0, 20.0, "batch", PATIENCE_S)
    vips = offer(world, 2, 0.15, 0.0, 20.0, "vip", 30.0)
    world.run_until(START_S + 4.0)
    before = world.engines["e0"].tokens_total
    world.run_until(START_S + 20.0)
    busy = (world.engines["e0"].tokens_total - before) * STEP_S / (SLOTS * 16.0)
    world.run_until(START_S + 60.0)
    return world, batch, vips, busy


def test_1_to_4_ten_times_too_much_for_longer_than_its_deadline() -> None:
    _, batch, vips, busy = overloaded()
    done = [job for job in batch if job.outcome == "completed"]
    late = [job for job in done if job.finished_s is not None and job.finished_s > job.deadline_s]
    assert len(done) > 150
    assert len(late) <= 0.01 * len(done), f"{len(late)} of {len(done)} ended late"
    assert all(job.finished_s is not None and job.finished_s <= job.deadline_s + 0.2 for job in done)
    paused = [job for job in batch if job.num_preempted]
    assert paused
    assert all(job.outcome == "completed" and job.emitted == job.output_tokens for job in paused)
    assert all(job.outcome == "completed" for job in vips)
    assert busy >= 0.93
    refused = [job for job in batch if job.refuse is not None]
    assert all(job.emitted == 0 for job in refused), "what is refused never cost a token"
    at_once = [job for job in refused if job.answered_s - job.arrived_s < 0.01]
    settled = [job for job in refused if job.arrived_s > START_S + 8.0]
    assert len([job for job in at_once if job in settled]) >= 0.8 * len(settled)
    assert not [job for job in refused if job.answered_s > job.deadline_s + 0.1]


def test_5_retry_after_is_when_there_is_room() -> None:
    world = World(QueueConfig(), 2, one_engine())
    batch = offer(world, 1, 6.0, 0.0, 10.0, "batch", PATIENCE_S)
    world.run_until(START_S + 10.1)
    refused = [job for job in batch if job.refuse is not None and job.answered_s - job.arrived_s < 0.01]
    last = refused[-1]
    assert last.refuse is not None
    retry_s = last.refuse.retry_after_s
    again = world.submit(last.answered_s + retry_s, 0, last.tenant, "batch", 100, 40, PATIENCE_S)
    world.run_until(START_S + 40.0)
    assert again.outcome == "completed"
    assert again.ttft_s < 1.0, "the work that stood before it is done by then"
    drained_s = max(job.finished_s for job in batch if job.finished_s is not None) - last.answered_s
    assert 0.5 * drained_s <= retry_s <= 1.5 * drained_s


def test_6_a_slow_hour_is_forgotten() -> None:
    world = World(QueueConfig(), 2, one_engine())
    engine = world.engines["e0"]
    offer(world, 1, 1.5, 0.0, 5.0, "standard", 60.0)
    world.run_until(START_S + 5.0)
    engine.step_s = 0.4
    slow = offer(world, 2, 0.3, 5.0, 25.0, "standard", 4.0)
    world.run_until(START_S + 25.0)
    assert [job for job in slow if job.refuse is not None], "at this pace an answer takes 16 s"
    engine.step_s = STEP_S
    fast = offer(world, 3, 0.3, 28.0, 40.0, "standard", 4.0)
    world.run_until(START_S + 60.0)
    assert all(job.outcome == "completed" for job in fast)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_7_paused_work_completes_on_an_engine_that_stalls(seed: int) -> None:
    world = World(QueueConfig(), 2, one_engine())
    batch = offer(world, seed, 10.0, 0.0, 20.0, "batch", PATIENCE_S)
    offer(world, seed + 100, 0.15, 0.0, 20.0, "vip", 30.0)
    rng, when_s, engine = random.Random(seed), 4.0, world.engines["e0"]
    while (when_s := when_s + rng.expovariate(2.0)) < 20.0:  # whose token comes now has the next 0.3 s later
        world.at(START_S + when_s, lambda: setattr(engine, "step_s", 0.3))
        world.at(START_S + when_s + 0.05, lambda: setattr(engine, "step_s", STEP_S))
    world.run_until(START_S + 60.0)
    paused = [job for job in batch if job.num_preempted]
    assert len(paused) > 20
    ended = [job for job in paused if job.outcome == "completed" and job.finished_s is not None]
    assert len(ended) == len(paused)
    assert all(job.finished_s is not None and job.finished_s <= job.deadline_s for job in ended)
