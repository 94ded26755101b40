"""`expertmesh twin`: find faults by seed, replay one, and plan capacity on a laptop."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..twin.plan import PlanReport

app = typer.Typer(
    help="The digital twin: the mesh's own code on a virtual clock.", invoke_without_command=True
)

Trace = Annotated[
    Path | None, typer.Option(help="JSON lines: at_s, prompt_tokens, output_tokens, tenant, band.")
]
Pools = Annotated[
    str, typer.Option(help="name=COUNT@PRICE_PER_HOUR[!INTERRUPTIONS_PER_HOUR], comma-separated.")
]
Timing = Annotated[
    Path | None, typer.Option(help="JSON: pool name (or `default`) to timing, as `twin calibrate` prints it.")
]


@app.callback()
def twin(
    context: typer.Context,
    trace: Trace = None,
    pools: Pools = "default=1@0",
    timing: Timing = None,
    ttft_s: Annotated[float, typer.Option(help="SLO: seconds to the first token.")] = 2.0,
    tpot_s: Annotated[float, typer.Option(help="SLO: mean seconds per further token.")] = 0.1,
    as_json: Annotated[bool, typer.Option("--json", help="The whole report as JSON.")] = False,
) -> None:
    """Without a command and with --trace: what a workload would meet on the given pools, and what it costs."""
    if context.invoked_subcommand is not None:
        return
    if trace is None:
        typer.echo(context.get_help())
        raise typer.Exit()
    _plan(trace, pools, timing, ttft_s, tpot_s, as_json)


def _plan(trace: Path, pools: str, timing: Path | None, ttft_s: float, tpot_s: float, as_json: bool) -> None:
    import msgspec

    from ..errors import ConfigError
    from ..twin import plan
    from ..twin.calibrate import Calibrated

    try:
        timings = (
            {} if timing is None else msgspec.json.decode(timing.read_bytes(), type=dict[str, Calibrated])
        )
        with trace.open("rb") as lines:
            rows = plan.parse_trace(lines)
        report = plan.plan(rows, plan.parse_pools(pools, timings), plan.Slo(ttft_s, tpot_s))
    except (ConfigError, OSError, msgspec.MsgspecError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    typer.echo(msgspec.json.format(msgspec.json.encode(report)).decode() if as_json else _table(report))


def _table(report: PlanReport) -> str:
    head = (
        f"{report.requests} requests in {report.duration_s:.0f} s: goodput {report.goodput_per_s:.2f}/s, "
        f"{report.output_tokens_per_s:.0f} output tokens/s, cost {report.cost:.2f} "
        f"({report.cost_per_million_tokens:.2f} per million output tokens)"
    )
    lines = [
        head,
        "",
        "band      requests completed    good  ttft p50  ttft p99  tpot p50   e2e p99",
    ]
    lines += [
        f"{b.band:9s} {b.requests:8d} {b.completed:9d} {b.good_share:7.1%} {b.ttft_p50_s:8.3f}s {b.ttft_p99_s:8.3f}s "
        f"{b.tpot_p50_s:8.4f}s {b.e2e_p99_s:8.2f}s"
        for b in report.bands
    ]
    lines += ["", "pool      engines    busy  filled     tokens  interruptions      cost"]
    lines += [
        f"{p.name:9s} {p.engines:7d} {p.busy_share:7.1%} {p.filled_share:7.1%} {p.tokens:10d} {p.interruptions:14d} "
        f"{p.cost:9.2f}"
        for p in report.pools
    ]
    lines.append("")
    for p in report.pools:
        told = "not calibrated: the engine's speed is assumed"
        if p.calibration_samples:
            told = (
                f"step times within {p.calibration_mean_error:.1%} on average, {p.calibration_max_error:.1%} at worst, "
                f"of {p.calibration_samples} measured steps"
            )
        lines.append(f"{p.name}: {told}")
    return "\n".join(lines)


@app.command()
def calibrate(
    samples: Annotated[
        Path, typer.Argument(help="JSON lines: streams, prefill_tokens, step_s of real steps.")
    ],
    max_num_seqs: Annotated[int, typer.Option(min=1, help="Slots of the real engine.")] = 16,
    kv_tokens: Annotated[int, typer.Option(min=16, help="Its KV cache in tokens.")] = 1_000_000,
) -> None:
    """Fit the simulated engine's timing to measurements; prints it for --timing, and the error of the fit."""
    import msgspec

    from ..errors import ConfigError
    from ..experts.sim_model import SimTiming
    from ..twin.calibrate import StepSample, calibrate, stamped

    try:
        lines = [line for line in samples.read_bytes().splitlines() if line.strip()]
        rows = [msgspec.json.decode(line, type=StepSample) for line in lines]
        fit = calibrate(rows, SimTiming(max_num_seqs=max_num_seqs, kv_tokens=kv_tokens))
    except (ConfigError, OSError, msgspec.MsgspecError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    typer.echo(msgspec.json.format(msgspec.json.encode({"default": stamped(fit)})).decode())
    typer.echo(
        f"error: mean {fit.mean_error:.1%}, worst {fit.max_error:.1%} over {fit.num_samples} samples",
        err=True,
    )


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
