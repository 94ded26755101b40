"""`expertmesh side up|down`: applications beside a mesh that runs: another model, or the other side of a release.

Rules: words in, words out; Ray is asked in ray_session.py. `serve run` ends all of Serve at Ctrl-C, and when its own
application fails: nothing that is typed here ends anything but the side it names.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated

import typer

from ..errors import ConfigError
from . import StartFailed

app = typer.Typer(
    help="Engines of another model or revision (or the pool controller) beside a mesh.", no_args_is_help=True
)


class Beside(StrEnum):
    shards = "shards"
    capacity = "capacity"


Name = Annotated[str, typer.Argument(help="What the side is called, e.g. green.")]


@app.command()
def up(
    name: Name,
    options: Annotated[
        list[str] | None, typer.Argument(help="Options of the graph: revision=v2 groups=2")
    ] = None,
    graph: Annotated[
        Beside, typer.Option(help="shards: engines · capacity: the pool controller.")
    ] = Beside.shards,
) -> None:
    """Start it and return when it serves. If it fails, or at Ctrl-C, what was begun is taken away again.

    The Ray is the one that RAY_ADDRESS names, or this host's."""
    wish = pairs(options)

    def start() -> None:
        from . import ray_session

        built = ray_session.build(graph.value, ray_session.options_of(graph.value, wish))
        with ray_session.attached():
            ray_session.deploy_beside(built, name, say)

    _told(start)


@app.command()
def down(name: Name) -> None:
    """Take it away; its streams finish or move first (drain_s)."""

    def end() -> None:
        from . import ray_session

        with ray_session.attached():
            ray_session.delete(name)
        say(f"{name} is gone")

    _told(end)


def pairs(options: list[str] | None) -> dict[str, str]:
    """`name=value` words as a dictionary. Raises typer.BadParameter."""
    found: dict[str, str] = {}
    for option in options or []:
        key, equals, value = option.partition("=")
        if not equals or not key:
            raise typer.BadParameter(f"{option!r} is not of the form name=value")
        if key in found:
            raise typer.BadParameter(f"{key!r} is given twice")
        found[key] = value
    return found


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _told(work: Callable[[], None]) -> None:
    try:
        work()
    except ConfigError as error:
        say(f"error: {error}")
        raise typer.Exit(2) from None
    except StartFailed as error:
        say(f"error: {error}")
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        say("stopped")
        raise typer.Exit(130) from None
