"""`expertmesh model …`: what is done to model files before anything serves them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from ..errors import ConfigError

app = typer.Typer(help="Prepare and check model files.", no_args_is_help=True)


@app.callback()
def model() -> None:
    """Prepare and check model files."""


@app.command()
def prepare(
    cache_dir: Annotated[
        Path | None, typer.Option(help="Where to keep it (default: the XDG cache folder).")
    ] = None,
    deep: Annotated[
        bool, typer.Option(help="Read and hash every byte, even when nothing seems changed.")
    ] = False,
    variant: Annotated[
        str,
        typer.Option(help="exact: computes what the dense model does; sparse: half of each FFN is active."),
    ] = "exact",
    quiet: Annotated[bool, typer.Option(help="Print the folder only.")] = False,
) -> None:
    """Make the embedded mixture of experts, or check the one that is there. Prints its folder."""
    from ..experts import model_store

    began_s = time.monotonic()

    def say(text: str) -> None:
        if not quiet:
            typer.echo(f"[{time.monotonic() - began_s:5.1f} s] {text}", err=True)

    try:
        if variant not in model_store.VARIANTS:
            raise ConfigError(f"variant {variant!r} is none of {', '.join(model_store.VARIANTS)}")
        prepared = model_store.prepare(cache_dir, say, deep, variant)
    except ConfigError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    say(f"model {prepared.name}: revision {prepared.revision} is sound")
    typer.echo(str(prepared.path))


if __name__ == "__main__":
    app()
