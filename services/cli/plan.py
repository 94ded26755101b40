"""`expertmesh plan`: what a model needs on which GPUs, before anything is rented."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ..errors import ConfigError


def plan(
    model: Annotated[Path, typer.Argument(help="Folder with the model's config.json, or that file.")],
    gpu: Annotated[str, typer.Option(help="A10G, A100-40G, A100-80G, L40S, H100 or H200.")] = "H100",
    data_parallel: Annotated[int, typer.Option(min=1, help="Ranks of a group.")] = 1,
    tensor_parallel: Annotated[int, typer.Option(min=1, help="GPUs of a rank.")] = 1,
    redundant_experts: Annotated[int, typer.Option(min=0, help="Extra expert slots of a layer.")] = 0,
    bits: Annotated[int, typer.Option(min=2, max=32, help="Bits per weight: 16, 8 or 4.")] = 16,
    batch: Annotated[int, typer.Option(min=1, help="Streams that run in the group at once.")] = 256,
    context: Annotated[int, typer.Option(min=1, help="Tokens of one stream.")] = 1024,
) -> None:
    """Weights and KV cache per GPU, what limits the speed, and the smallest group that fits."""
    from ..experts import sizing

    file = model if model.is_file() else model / "config.json"
    try:
        config = json.loads(file.read_text())
        if gpu not in sizing.GPUS:
            raise ConfigError(f"unknown GPU {gpu}: {', '.join(sizing.GPUS)} are known")
        card = sizing.GPUS[gpu]
        count = sizing.weights(config)
        found = sizing.size(
            config,
            card,
            tensor_parallel=tensor_parallel,
            data_parallel=data_parallel,
            redundant_experts=redundant_experts,
            bytes_per_weight=bits / 8,
            batch=batch,
            context_tokens=context,
        )
        least = sizing.smallest_group(config, card, bytes_per_weight=bits / 8)
    except (OSError, ValueError, ConfigError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    typer.echo(
        f"weights               {count.total / 1e9:.1f} B, of which a token meets {count.per_token / 1e9:.1f} B"
    )
    typer.echo(
        f"weights per GPU       {found.weight_bytes / 1e9:.1f} GB of {card.memory / 1e9:.1f} GB on {gpu}"
    )
    typer.echo(f"KV cache              {found.kv_bytes_per_token / 1024:.1f} KiB per token and GPU")
    if found.fits:
        typer.echo(f"KV cache of the group {found.group_kv_tokens:,} tokens")
        limit = "bandwidth" if found.step_s_by_bandwidth > found.step_s_by_compute else "compute"
        typer.echo(
            f"at most               {found.tokens_per_s:,.0f} tokens/s with {batch} streams, by {limit}"
        )
    else:
        typer.echo("KV cache of the group none: the model does not fit")
    typer.echo(f"smallest group        {f'{least} × {gpu}' if least else f'512 × {gpu} are too few'}")
    if not found.fits:
        raise typer.Exit(1)
