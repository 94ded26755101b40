"""`expertmesh`: every command of the mesh. Heavy imports happen inside the command that needs them."""

from __future__ import annotations

from enum import StrEnum
from importlib.metadata import version
from typing import Annotated

import typer

from . import audit, cache, cost, doctor, erase, keys, model, plan, queue, rollout, side, twin

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(model.app, name="model")
app.add_typer(keys.app, name="keys")
app.add_typer(cache.app, name="cache")
app.add_typer(audit.app, name="audit")
app.add_typer(twin.app, name="twin")
app.add_typer(rollout.app, name="rollout")
app.add_typer(side.app, name="side")
app.command("drain")(rollout.drain)
app.command("erase")(erase.erase)
app.command("doctor")(doctor.doctor)
app.command("plan")(plan.plan)
app.command("queue")(queue.queue)
app.command("cost")(cost.cost)


def show_version(wanted: bool) -> None:
    """For `--version`."""
    if wanted:
        typer.echo(f"expertmesh {version('expertmesh')}")
        raise typer.Exit


@app.callback()
def main(
    _version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Serves mixture-of-experts models: gateway, cache, priority queue, expert-parallel shards."""


class Graph(StrEnum):
    dev = "dev"
    sim = "sim"
    prod = "prod"


@app.command()
def run(
    options: Annotated[
        list[str] | None,
        typer.Argument(help="Options of the graph, as for `serve run`: shards=1 http_port=8010"),
    ] = None,
    graph: Annotated[
        Graph, typer.Option(help="dev: embedded model · sim: simulated engines · prod.")
    ] = Graph.dev,
    also: Annotated[
        list[str] | None,
        typer.Option(
            help="Another model beside it: name=folder of weights, options of its own behind it "
            "(name=folder,shards=2,max_model_len=4096); may be given several times."
        ),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show what every process logs.")] = False,
) -> None:
    """Run the whole mesh on this machine, in the foreground, until Ctrl-C."""
    from .run import Wish
    from .run import run as run_mesh

    raise typer.Exit(run_mesh(Wish(graph.value, side.pairs(options), verbose, side.pairs(also))))


if __name__ == "__main__":
    app()
