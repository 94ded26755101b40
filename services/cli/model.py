"""`expertmesh model …`: what is done to model files before anything serves them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from ..errors import ConfigError
from . import model_encryption

app = typer.Typer(help="Prepare, quantise, encrypt and check model files.", no_args_is_help=True)


@app.callback()
def model() -> None:
    """Prepare, quantise, encrypt and check model files."""


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


@app.command()
def quantize(
    source: Annotated[Path, typer.Argument(help="A folder with unquantised weights (safetensors).")],
    target: Annotated[Path, typer.Argument(help="The folder to make.")],
    scheme: Annotated[
        str, typer.Option(help="fp8, int8 (weights and activations) or int4 (weights).")
    ] = "fp8",
    group: Annotated[int, typer.Option(help="int4: inputs that share a scale; 0: the most that fits.")] = 0,
) -> None:
    """Write the model again with fewer bits, in the compressed-tensors format that vLLM reads. Prints what it saved."""
    from ..experts import quantized_files

    began_s = time.monotonic()

    def say(text: str) -> None:
        typer.echo(f"[{time.monotonic() - began_s:5.1f} s] {text}", err=True)

    try:
        report = quantized_files.quantize_folder(source, target, scheme, group, say)
    except ConfigError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    groups = f", groups of {report.group}" if report.group else ""
    say(f"{report.num_matrices} matrices in {scheme}{groups}; the rest in bfloat16")
    typer.echo(
        f"{report.num_bytes / 1e6:,.0f} MB, {report.share:.1%} of {report.bf16_bytes / 1e6:,.0f} MB in bfloat16; "
        f"revision {report.revision}"
    )


@app.command()
def adapters(
    folder: Annotated[Path, typer.Argument(help="The folder that holds adapters, one folder each.")],
    model_path: Annotated[Path, typer.Option("--model", help="The base model's folder.")],
    name: Annotated[
        str, typer.Option(help="What the mesh calls the base (default: its folder's name).")
    ] = "",
    max_rank: Annotated[int, typer.Option(help="As max_adapter_rank of the graph.")] = 16,
) -> None:
    """Check LoRA adapters as the mesh would: one line each, and exit status 1 when one cannot be served."""
    from ..errors import MeshError
    from ..experts import adapter_files

    try:
        base = adapter_files.base_of(name or model_path.name, str(model_path), max_rank)
    except ConfigError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    unsound = 0
    for one in adapter_files.names(folder):
        try:
            found = adapter_files.find(folder, one, base)
            tenants = adapter_files.tenants_of(folder / one)
            whose = "everybody" if tenants is None else ", ".join(sorted(tenants)) or "nobody"
            typer.echo(f"{one}\trevision {found.ref.revision}\trank {found.rank}\tfor {whose}")
        except MeshError as error:
            unsound += 1
            typer.echo(f"{one}\t{error.message}")
    if unsound:
        raise typer.Exit(1)


for command in (
    model_encryption.key,
    model_encryption.encrypt,
    model_encryption.rekey,
    model_encryption.verify,
    model_encryption.decrypt,
):
    app.command()(command)
