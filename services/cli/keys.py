"""`expertmesh keys …`: who may call the mesh. Keys are shown once and stored as hashes."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from ..config import DEFAULT_BANDS
from ..errors import ConfigError
from ..gateway import json_key_store
from ..gateway.identity import KeyRecord, Permission, apart, new_key
from ..gateway.tokens import MAX_TENANT_CHARS
from ..quota.allowance import NOTHING_LIMITED, Allowance

app = typer.Typer(help="API keys: add, list, limit, revoke.", no_args_is_help=True)

KeysFile = Annotated[Path, typer.Option("--file", envvar="EXPERTMESH_KEYS_FILE", help="The key file.")]
KeyId = Annotated[str, typer.Argument(help="The key's name, as `list` shows it.")]
RequestsPerMinute = Annotated[int, typer.Option(min=0, help="Requests that it may make a minute; 0: any.")]
TokensPerMinute = Annotated[
    int, typer.Option(min=0, help="Tokens a minute, prompts and max_tokens together; 0: any.")
]
TokensPerDay = Annotated[int, typer.Option(min=0, help="Tokens a day (UTC), likewise; 0: any.")]
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
        list[str] | None,
        typer.Option(
            help="A priority band that it may use: vip, standard or batch (default: standard). Once for each; "
            "the first is what its requests get when they name none."
        ),
    ] = None,
    permission: Annotated[
        list[Permission] | None,
        typer.Option(help="What it may do (default: generate). Once for each."),
    ] = None,
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
    requests_per_minute: RequestsPerMinute = 0,
    tokens_per_minute: TokensPerMinute = 0,
    tokens_per_day: TokensPerDay = 0,
    may_leave: Annotated[
        bool, typer.Option("--may-leave", help="What the queue refuses of it may go to the remote server.")
    ] = False,
    keys_file: KeysFile = DEFAULT_FILE,
) -> None:
    """Make a key and print it. It cannot be shown again."""
    if unknown := set(band or ()) - {each.name for each in DEFAULT_BANDS}:
        typer.echo(
            f"note: {', '.join(sorted(unknown))}: bands are {', '.join(each.name for each in DEFAULT_BANDS)} "
            "unless a mesh is configured otherwise; it refuses what names another",
            err=True,
        )
    for what, text in (("tenant", tenant), ("--id", key_id or tenant)):
        if not 0 < len(text) <= MAX_TENANT_CHARS or not text.isprintable():
            raise typer.BadParameter(f"{what}: 1 to {MAX_TENANT_CHARS} characters that can be printed")
    if not apart(permission or ()):
        raise typer.BadParameter("an auditor's key may do nothing else: --permission audit alone")
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
            allowance=Allowance(requests_per_minute, tokens_per_minute, tokens_per_day),
            may_leave=may_leave,
        )
    except ConfigError as error:
        raise _refuse(error) from None
    typer.echo(key)


@app.command("list")
def show(keys_file: KeysFile = DEFAULT_FILE) -> None:
    """Every key's name, tenant, bands, permissions and limits."""
    try:
        content = json_key_store.load(keys_file)
    except ConfigError as error:
        raise _refuse(error) from None
    for record in content.keys:
        permissions = ",".join(permission.value for permission in record.permissions)
        limits = shown_limits(record.allowance)
        leaves = "\tmay leave" if record.may_leave else ""
        typer.echo(
            f"{record.key_id}\t{record.tenant}\t{','.join(record.bands)}\t{permissions}\t{limits}{leaves}"
        )


@app.command()
def limit(
    key_id: KeyId,
    requests_per_minute: RequestsPerMinute = 0,
    tokens_per_minute: TokensPerMinute = 0,
    tokens_per_day: TokensPerDay = 0,
    keys_file: KeysFile = DEFAULT_FILE,
) -> None:
    """Set what a key may use; what is not said is not limited. Gateways that run take it up within a second or two."""
    allowance = Allowance(requests_per_minute, tokens_per_minute, tokens_per_day)

    def limited(record: KeyRecord) -> KeyRecord:
        return msgspec.structs.replace(record, allowance=allowance)

    _change(keys_file, key_id, limited)
    typer.echo(f"{key_id}\t{shown_limits(allowance)}")


@app.command()
def locality(
    key_id: KeyId,
    may_leave: Annotated[
        bool,
        typer.Option(
            "--may-leave/--stays", help="Whether what the queue refuses may go to the remote server."
        ),
    ],
    keys_file: KeysFile = DEFAULT_FILE,
) -> None:
    """Say whether a key's requests may leave this mesh. Gateways that run take it up within a second or two."""

    def moved(record: KeyRecord) -> KeyRecord:
        return msgspec.structs.replace(record, may_leave=may_leave)

    _change(keys_file, key_id, moved)
    typer.echo(f"{key_id}\t{'may leave' if may_leave else 'stays'}")


@app.command()
def revoke(
    key_id: KeyId,
    keys_file: KeysFile = DEFAULT_FILE,
) -> None:
    """Forget a key. Gateways that run take it up within a second or two."""
    _change(keys_file, key_id, lambda _: None)


def shown_limits(allowance: Allowance) -> str:
    """In words, for a list."""
    if allowance == NOTHING_LIMITED:
        return "no limits"
    named = {
        "requests/min": allowance.requests_per_minute,
        "tokens/min": allowance.tokens_per_minute,
        "tokens/day": allowance.tokens_per_day,
    }
    return ", ".join(f"{limit} {name}" for name, limit in named.items() if limit)


def _change(keys_file: Path, key_id: str, change: Callable[[KeyRecord], KeyRecord | None]) -> None:
    """Every record of that name as `change` makes it; None: none of it is left."""
    try:
        json_key_store.change(keys_file, key_id, change)
    except ConfigError as error:
        raise _refuse(error) from None


def _refuse(error: ConfigError) -> typer.Exit:
    typer.echo(f"error: {error}", err=True)
    return typer.Exit(2)
