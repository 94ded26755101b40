"""`expertmesh keys …`: who may call the mesh. Keys are shown once and stored as hashes."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ..errors import ConfigError
from ..gateway import json_key_store
from ..gateway.identity import Permission, new_key

app = typer.Typer(help="API keys: add, list, revoke.", no_args_is_help=True)

KeysFile = Annotated[Path, typer.Option("--file", envvar="EXPERTMESH_KEYS_FILE", help="The key file.")]
DEFAULT_FILE = Path(".expertmesh/keys.json")


class Journal(StrEnum):
    """KeyRecord.journal."""

    ASKED = "asked"
    ALWAYS = "always"
    NEVER = "never"


@app.command()
def add(
    tenant: Annotated[str, typer.Argument(help="Who pays; caches, quotas and logs are kept apart by it.")],
    key_id: Annotated[str, typer.Option("--id", help="The key's name; an existing one is replaced.")] = "",
    band: Annotated[
        list[str] | None, typer.Option(help="Priority bands that it may use, the first is its default.")
    ] = None,
    permission: Annotated[list[Permission] | None, typer.Option(help="What it may do.")] = None,
    weight: Annotated[float, typer.Option(min=0.001, help="Its share inside a band.")] = 1.0,
    journal: Annotated[
        Journal,
        typer.Option(help="Answers that outlive their gateway: those asked for by a key, all, or none."),
    ] = Journal.ASKED,
    semantic_cache: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=0.5,
            help="Answer questions by meaning, at most this share of such hits wrong (0.01); 0: off.",
        ),
    ] = 0.0,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Models that it may ask for (default: all): the base's name, base:adapter, or base:* for its adapters."
        ),
    ] = None,
    keys_file: KeysFile = DEFAULT_FILE,
) -> None:
    """Make a key and print it. It cannot be shown again."""
    key = new_key()
    try:
        json_key_store.add(
            keys_file,
            key,
            key_id=key_id or f"{tenant}-{key[-6:]}",
            tenant=tenant,
            bands=tuple(band or ["standard"]),
            permissions=tuple(permission or [Permission.GENERATE]),
            weight=weight,
            journal=journal.value,
            semantic_cache=semantic_cache,
            models=tuple(model or ()),
        )
    except ConfigError as error:
        raise _refuse(error) from None
    typer.echo(key)


@app.command("list")
def show(keys_file: KeysFile = DEFAULT_FILE) -> None:
    """Every key's name, tenant, bands and permissions."""
    try:
        content = json_key_store.load(keys_file)
    except ConfigError as error:
        raise _refuse(error) from None
    for record in content.keys:
        permissions = ",".join(permission.value for permission in record.permissions)
        typer.echo(f"{record.key_id}\t{record.tenant}\t{','.join(record.bands)}\t{permissions}")


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="The key's name, as `list` shows it.")],
    keys_file: KeysFile = DEFAULT_FILE,
) -> None:
    """Forget a key. Gateways that run take it up within a second or two."""
    try:
        content = json_key_store.load(keys_file)
        kept = tuple(record for record in content.keys if record.key_id != key_id)
        if len(kept) == len(content.keys):
            raise ConfigError(f"{keys_file} has no key named {key_id!r}")
        json_key_store.save(keys_file, json_key_store.KeyFile(pepper=content.pepper, keys=kept))
    except ConfigError as error:
        raise _refuse(error) from None


def _refuse(error: ConfigError) -> typer.Exit:
    typer.echo(f"error: {error}", err=True)
    return typer.Exit(2)
