"""`expertmesh twin`: find faults by seed, replay one, and plan capacity on a laptop."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer

app = typer.Typer(help="The digital twin: the mesh's own code on a virtual clock.", no_args_is_help=True)


@app.command()
def run(
    seeds: Annotated[int, typer.Option(min=1, help="How many worlds to live through.")] = 2000,
    first: Annotated[int, typer.Option(min=0, help="The first seed.")] = 0,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0 means one per core.")] = 0,
) -> None:
    """Run seeds with faults; ends with 1 when an invariant broke, and says how to see it again."""
    from ..twin.runner import LOG_TAIL, replay, replay_command, run_seeds

    shown_s = 0.0

    def progress(done: int, failed: int) -> None:
        nonlocal shown_s
        if time.monotonic() - shown_s > 1.0 and sys.stderr.isatty():
            shown_s = time.monotonic()
            typer.echo(f"\r{done} of {seeds} seeds, {failed} failed", err=True, nl=False)

    summary = run_seeds(first, seeds, workers=workers, on_progress=progress)
    typer.echo(
        f"{summary.num_seeds} seeds · {summary.num_requests} requests · {summary.num_faults} faults · "
        f"{summary.num_events} events · {summary.wall_s:.1f} s · {len(summary.failures)} failed"
    )
    for failure in summary.failures[:10]:
        typer.echo(f"seed {failure.seed}: {failure.problem}\n  replay: {replay_command(failure.seed)}")
    if summary.failures:
        _, log = replay(summary.failures[0].seed)
        typer.echo("\n".join(log[-LOG_TAIL:]))
        raise typer.Exit(1)


@app.command()
def replay(seed: Annotated[int, typer.Argument(min=0, help="The seed of a run.")]) -> None:
    """Live through one world again and print its event log."""
    from ..twin.runner import replay as replay_seed

    problem, log = replay_seed(seed)
    typer.echo("\n".join(log))
    typer.echo(problem or "every invariant held")
    raise typer.Exit(1 if problem else 0)
