"""Runs seeds, on all cores, and tells what failed so that it can be replayed.

Rules: a shell around World; nothing about invariants. A failing seed is run again with the event log on, which is
why the log costs nothing while all is well.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor

import msgspec

from .records import Violation
from .world import World

CHUNK = 25
LOG_TAIL = 60


class SeedResult(msgspec.Struct, frozen=True):
    """What became of one seed. `problem` is empty when every invariant held; `number` is the broken one's (0: an
    error that is no invariant's)."""

    seed: int
    num_events: int
    num_requests: int
    num_faults: int
    problem: str = ""
    number: int = 0


class Summary(msgspec.Struct, frozen=True):
    """What became of many seeds."""

    num_seeds: int
    num_events: int
    num_requests: int
    num_faults: int
    wall_s: float
    failures: tuple[SeedResult, ...]


def run_seed(seed: int) -> SeedResult:
    """One world from beginning to end."""
    world = World(seed)
    problem, number = _problem(world)
    return SeedResult(seed, world.sim.num_events, len(world.asks), len(world.script), problem, number)


def replay(seed: int) -> tuple[str, list[str]]:
    """Run a seed again with the event log: (problem or empty, log lines)."""
    world = World(seed, keep_log=True)
    problem, _ = _problem(world)
    return problem, [*(f"script    {fault}" for fault in world.script), *world.sim.log]


def _problem(world: World) -> tuple[str, int]:
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # shells log what goes wrong, and here everything goes wrong
    try:
        world.run()
    except Violation as violation:
        return str(violation), violation.number
    except Exception as error:  # a core or a shell raised: that is a finding too
        return f"{type(error).__name__}: {error}", 0
    finally:
        logging.disable(before)
    return "", 0


def run_chunk(first: int, count: int) -> list[SeedResult]:
    """Seeds `first` … `first + count - 1` in this process."""
    return [run_seed(seed) for seed in range(first, first + count)]


def first_failure(seeds: Iterable[int]) -> SeedResult | None:
    """The first seed that breaks an invariant, or None."""
    for seed in seeds:
        result = run_seed(seed)
        if result.problem:
            return result
    return None


def run_seeds(
    first: int, count: int, *, workers: int = 0, on_progress: Callable[[int, int], None] | None = None
) -> Summary:
    """`count` seeds from `first` on, over `workers` processes (0: one per core)."""
    began = time.monotonic()
    workers = workers or len(os.sched_getaffinity(0))
    done: list[SeedResult] = []
    for results in _chunks(first, count, workers):
        done += results
        if on_progress is not None:
            on_progress(len(done), sum(1 for result in done if result.problem))
    return Summary(
        len(done),
        sum(result.num_events for result in done),
        sum(result.num_requests for result in done),
        sum(result.num_faults for result in done),
        time.monotonic() - began,
        tuple(sorted((result for result in done if result.problem), key=lambda result: result.seed)),
    )


def _chunks(first: int, count: int, workers: int) -> Iterator[list[SeedResult]]:
    starts = range(first, first + count, CHUNK)
    sizes = [min(CHUNK, first + count - start) for start in starts]
    if workers == 1 or count <= CHUNK:
        yield from map(run_chunk, starts, sizes)
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(run_chunk, starts, sizes)


def replay_command(seed: int) -> str:
    """What a person types to see the failure again."""
    return f"expertmesh twin replay {seed}"
