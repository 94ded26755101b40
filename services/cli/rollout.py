"""`expertmesh rollout …` and `expertmesh drain`: releases of a model's revisions, and workers that are to go.

Rules: words in, words out; the queue of a running mesh decides, asked over a gateway's HTTP (`POST /admin/queue`).
"""

from __future__ import annotations

from typing import Annotated, Any, cast

import msgspec
import typer

from ..queue.rollout.operations import Drain, Start, Status, Steer, Wish
from ..queue.rollout.plan import CANARY_STEPS, Plan, Strategy
from ..queue.rollout.verdict import Limits
from .cache import DEFAULT_URL, Key, Url, call

app = typer.Typer(help="Releases: a new revision of the model beside the old one.", no_args_is_help=True)

ROUTE = "/admin/queue"
Model = Annotated[str, typer.Option(help="Where several models are served.")]


@app.command()
def status(url: Url = DEFAULT_URL, key: Key = "") -> None:
    """Revisions, their share of sessions, their workers, and the release under way."""
    _ask(Status(), url, key)


@app.command()
def start(
    new: Annotated[str, typer.Argument(help="The new revision, as its engines call themselves.")],
    strategy: Annotated[str, typer.Option(help="canary, blue_green or rolling.")] = "canary",
    old: Annotated[str, typer.Option(help="What it replaces; left out: what serves now.")] = "",
    steps: Annotated[str, typer.Option(help="Shares of a canary, as in 0.05,0.25,1.")] = "",
    hold_s: Annotated[float, typer.Option(help="Least seconds per step.")] = 120.0,
    bake_s: Annotated[
        float, typer.Option(help="Seconds at 100% in which it still rolls back by itself.")
    ] = 600.0,
    patience_s: Annotated[float, typer.Option(help="Longest wait for its engines, longest doubt.")] = 1800.0,
    min_requests: Annotated[int, typer.Option(help="Streams wanted before a verdict.")] = 50,
    max_error_rate: Annotated[
        float, typer.Option(help="Lost and failed streams, beyond the old one's.")
    ] = 0.01,
    ttft_s: Annotated[float, typer.Option(help="Slow first token; 0: 1.5 times the old one's p95.")] = 0.0,
    model: Model = "",
    url: Url = DEFAULT_URL,
    key: Key = "",
) -> None:
    """Begin. Do it before the new revision's engines come up, or they serve at once."""
    try:
        shares = tuple(float(step) for step in steps.split(",")) if steps else CANARY_STEPS
        limits = Limits(min_requests, max_error_rate, ttft_s)
        plan = Plan(new, old, cast(Strategy, strategy), shares, hold_s, bake_s, patience_s, limits=limits)
        plan = msgspec.convert(msgspec.to_builtins(plan), Plan)
    except ValueError as error:  # msgspec's are ValueErrors too
        raise typer.BadParameter(str(error)) from None
    _ask(Start(plan, model), url, key)


@app.command()
def promote(model: Model = "", url: Url = DEFAULT_URL, key: Key = "") -> None:
    """Everything to the new revision now; the old one finishes its streams."""
    _ask(Steer("promote", model), url, key)


@app.command()
def abort(model: Model = "", url: Url = DEFAULT_URL, key: Key = "") -> None:
    """Everything back to the old revision; the new one finishes its streams."""
    _ask(Steer("abort", model), url, key)


@app.command()
def pause(model: Model = "", url: Url = DEFAULT_URL, key: Key = "") -> None:
    """Stay at this step; a bad verdict still rolls back."""
    _ask(Steer("pause", model), url, key)


@app.command()
def resume(model: Model = "", url: Url = DEFAULT_URL, key: Key = "") -> None:
    """Go on after a pause."""
    _ask(Steer("resume", model), url, key)


def drain(
    unit: Annotated[str, typer.Argument(help="A worker, as `expertmesh rollout status` calls it.")],
    within_s: Annotated[
        float, typer.Option("--within", help="Its streams finish, or move after so long.")
    ] = 60.0,
    url: Url = DEFAULT_URL,
    key: Key = "",
) -> None:
    """Cordon a worker, let its streams finish or move, end it. Serve starts another in its place."""
    _ask(Drain(unit, within_s), url, key)


def _ask(wish: Wish, url: str, key: str) -> None:
    typer.echo(
        draw(cast("dict[str, Any]", call(url, key, "POST", ROUTE, msgspec.to_builtins(wish)))), nl=False
    )


def draw(answer: dict[str, Any]) -> str:
    """The queue's answer as a person reads it."""
    if "drains" in answer:
        return f"drains: {', '.join(answer['drains'])}\n"
    return "".join(_model(model, told) for model, told in answer.items()) or "no model is served yet\n"


def _model(model: str, told: dict[str, Any]) -> str:
    lines = [model]
    if (release := told.get("release")) is not None:
        paused = ", paused" if release["paused"] else ""
        lines.append(
            f"  {release['strategy']} {release['old']} → {release['new']}: {release['phase']} (step "
            f"{release['step'] + 1}{paused}) for {release['for_s']} s: {release['why']}"
        )
    lines.append(
        f"  {'revision':<24}{'share':>7}{'engines':>9}{'slots':>7}{'streams':>9}{'ended':>8}{'lost':>6}{'TTFT p95':>10}"
    )
    for name, one in told["revisions"].items():
        lines.append(
            f"  {name or '-':<24}{one['share']:>7.1%}{one['engines']:>9}{one['slots']:>7}{one['streams']:>9}"
            f"{one['ended']:>8}{one['lost']:>6}{one['ttft_p95_s']:>10}"
        )
        for worker, facts in one["workers"].items():
            state = "drains" if facts["drains"] else "serves" if facts["serves"] else "away"
            lines.append(f"    {worker:<40}{state:<8}{facts['age_s'] / 3600:>6.1f} h")
    return "\n".join(lines) + "\n"
