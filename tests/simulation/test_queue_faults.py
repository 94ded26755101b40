"""What the death of a queue, a gateway or an engine does to requests, on a virtual clock.

1. Queue killed under load: every request has exactly one outcome, all complete, no slot is given twice, grants go on
   within 2 s of the kill.
2. Gateway killed: its leases are given on; the other gateways' requests complete.
3. Engine killed: it is fenced once, its streams continue elsewhere after what they had emitted.
4. A gateway that never returns leases loses them after the lease's life; one that names them keeps them, but not
   beyond the request's deadline.
5. A whole replica reserved for VIPs is lent while idle, given back at once, and never to what cannot be preempted.
"""

from __future__ import annotations

import random
from collections import Counter

from services.config import QueueConfig
from services.link.messages import EngineLoad, Grant, Preempt, Progress
from services.queue.events import FromEngine, FromGateway, Tick, ToGateway
from services.queue.leases import LOST_S
from services.queue.scheduler import Scheduler
from tests.simulation.queue_world import Job, SimEngineHost, World
from tests.unit.queue.making import answer, asking, queue

START_S = 1001.0


def engines(count: int = 2, slots: int = 8) -> list[SimEngineHost]:
    return [SimEngineHost(f"e{i}", slots, 0.02, 20_000.0) for i in range(count)]


def load(world: World, count: int, over_s: float) -> list[Job]:
    rng = random.Random(7)
    return [
        world.submit(
            START_S + rng.random() * over_s, rng.randrange(len(world.gateways)), rng.choice("abc"),
            rng.choice(("vip", "standard", "batch", "batch")), rng.randrange(20, 200), rng.randrange(10, 50),
        )
        for _ in range(count)
    ]  # fmt: skip


def all_once(jobs: list[Job]) -> bool:
    return all(
        job.outcomes == 1 and job.outcome == "completed" and job.emitted == job.output_tokens for job in jobs
    )


def test_1_a_killed_queue_loses_and_doubles_nothing() -> None:
    world = World(QueueConfig(), 2, engines(), check=True)
    jobs = load(world, 300, 4.0)
    for at_s in (1.5, 3.0):
        world.at(START_S + at_s, lambda: world.crash_queue(0.3))
    world.run_until(START_S + 1.5)
    before = len(world.order)
    world.run_until(START_S + 3.0)
    granted_at = sorted(job.granted_s for job in jobs if job.granted_s is not None)
    after_kill = [s for s in granted_at if s > START_S + 1.51]
    assert len(world.order) > before
    assert after_kill[0] - (START_S + 1.5) <= 2.0
    for _ in range(400):
        world.run_until(world.now_s + 0.1)
        for engine in world.engines.values():  # what runs was leased: never more than the depth allows
            assert len(engine.streams) + len(engine.inside) <= engine.slots + 5
    assert all_once(jobs), Counter(job.outcome for job in jobs)


def test_2_a_killed_gateways_leases_are_given_on() -> None:
    world = World(QueueConfig(), 2, engines(1), check=True)
    jobs = load(world, 120, 1.0)
    world.at(START_S + 1.0, lambda: world.kill_gateway("g0"))
    world.run_until(START_S + 1.0 + LOST_S + 0.3)
    assert world.queue is not None
    gateways = {
        entry.gateway
        for engine in world.queue.state.fleet.engines.values()
        for entry in engine.leases.values()
    }
    assert gateways == {"g1"}
    world.run_until(START_S + 60.0)
    assert all_once([job for job in jobs if job.gateway == "g1"])


def test_3_a_killed_engines_streams_go_on_elsewhere() -> None:
    world = World(QueueConfig(), 2, engines(2), check=True)
    jobs = load(world, 120, 1.0)
    world.at(START_S + 0.8, lambda: world.kill_engine("e0"))
    world.run_until(START_S + 60.0)
    assert all_once(jobs)
    moved = [job for job in jobs if "e0" in job.avoid]
    assert moved
    assert world.queue is not None
    assert set(world.queue.state.fleet.engines) == {"e1"}


def leased(config: QueueConfig, remaining_s: float) -> Scheduler:
    scheduler = queue(config)
    assert isinstance(answer(scheduler, asking(1, remaining_s=remaining_s)), Grant)
    return scheduler


def held_for_s(scheduler: Scheduler, renew: bool, limit_s: float) -> float:
    """How long the lease lives; checks that its gateway is told."""
    now_s, total = 100.0, 0
    while now_s < 100.0 + limit_s:
        now_s += 0.1
        total += 1
        scheduler.decide(FromEngine(EngineLoad("e0", 1, 0, 9_000, 0.02, total)), now_s)
        if renew:
            scheduler.decide(FromGateway("g", Progress((1,), (0,))), now_s)
        effects = scheduler.decide(Tick(), now_s)
        if any(isinstance(e, ToGateway) and isinstance(e.message, Preempt) for e in effects):
            assert scheduler.state.fleet.engines["e0"].used == 0
            scheduler.state.check_integrity()
            return now_s - 100.0
    return now_s - 100.0


def test_4_leases_that_nobody_returns_end() -> None:
    config = QueueConfig(lease_ttl_s=3.0)
    scheduler = leased(config, 600.0)
    assert 3.0 <= held_for_s(scheduler, renew=False, limit_s=10.0) <= 3.4
    scheduler = leased(config, 600.0)
    assert held_for_s(scheduler, renew=True, limit_s=20.0) >= 20.0
    scheduler = leased(config, 5.0)
    assert 8.0 <= held_for_s(scheduler, renew=True, limit_s=20.0) <= 8.4  # deadline + one life


def test_5_a_reserved_replica_is_lent_and_given_back() -> None:
    pair = [*engines(1), SimEngineHost("v0", 8, 0.02, 20_000.0, pool="vip")]
    world = World(QueueConfig(), 1, pair, check=True)
    batch = [world.submit(START_S + i * 0.01, 0, "b", "batch", 50, 100) for i in range(80)]
    world.run_until(START_S + 2.5)
    assert len(world.engines["v0"].streams) == 8, "idle reserved slots are lent"
    vips = [world.submit(START_S + 3.0, 0, "v", "vip", 50, 20) for _ in range(8)]
    world.run_until(START_S + 30.0)
    assert all(job.ttft_s <= 0.03 for job in vips), "given back at once"
    at_home = [job for job in vips if job.grant is not None and job.grant.engine_id == "v0"]
    assert len(at_home) >= 6, "its own replica first"
    assert all_once([*vips, *batch])


def test_5_what_cannot_be_preempted_is_never_lent_a_reserved_replica() -> None:
    config = QueueConfig(bands=tuple(
        band.model_copy(update={"preemptible": False, "reserved_share": 0.0, "pauses_lower": False})
        for band in QueueConfig().bands
    ))  # fmt: skip
    world = World(config, 1, [*engines(1), SimEngineHost("v0", 8, 0.02, 20_000.0, pool="vip")], check=True)
    jobs = [world.submit(START_S, 0, "b", "batch", 50, 50) for _ in range(40)]
    world.run_until(START_S + 30.0)
    assert all(job.grant is not None and job.grant.engine_id == "e0" for job in jobs)
    assert all_once(jobs)
