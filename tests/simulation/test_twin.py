"""The digital twin: thousands of small worlds with faults, every invariant after every event.

A failing seed prints the command that replays it and the end of its event log. `TWIN_SEEDS` sets how many.
"""

from __future__ import annotations

import os

import pytest

from services.twin import faults
from services.twin.runner import LOG_TAIL, replay, replay_command, run_seed, run_seeds
from services.twin.world import World

SEEDS = int(os.environ.get("TWIN_SEEDS", "2000"))


def test_every_seed_keeps_every_invariant() -> None:
    summary = run_seeds(0, SEEDS)
    print(
        f"{summary.num_seeds} seeds, {summary.num_requests} requests, {summary.num_faults} faults, "
        f"{summary.num_events} events in {summary.wall_s:.1f} s"
    )
    if summary.failures:
        first = summary.failures[0]
        _, log = replay(first.seed)
        tail = "\n".join(log[-LOG_TAIL:])
        pytest.fail(
            f"{len(summary.failures)} of {SEEDS} seeds fail. Seed {first.seed}: {first.problem}\n"
            f"replay: {replay_command(first.seed)}\n{tail}"
        )


@pytest.mark.parametrize("seed", [3, 11, 42])
def test_the_same_seed_is_the_same_world(seed: int) -> None:
    first, second = replay(seed), replay(seed)
    assert first == second and len(first[1]) > 100


def test_keeping_a_log_changes_nothing() -> None:
    quiet, loud = World(17), World(17, keep_log=True)
    quiet.run()
    loud.run()
    assert (quiet.sim.num_events, quiet.sim.now_s) == (loud.sim.num_events, loud.sim.now_s)


def test_worlds_have_every_kind_of_fault_and_of_end() -> None:
    """The worlds must go where the bugs are: all faults, all ends, every engine lost while it worked."""
    kinds: set[str] = set()
    ends: set[str] = set()
    for seed in range(250):
        world = World(seed)
        kinds |= {fault.kind for fault in world.script}
        if seed < 60:
            world.run()
            ends |= {str(record.reason or "completed") for record in world.oracle.requests.values()}
    assert kinds == set(faults.Kind.__args__)  # type: ignore[attr-defined]
    assert {"completed", "client_cancelled", "deadline_exceeded"} <= ends


def test_a_seed_reports_its_figures() -> None:
    result = run_seed(5)
    assert not result.problem and result.num_events > 100 and result.num_requests >= 4
