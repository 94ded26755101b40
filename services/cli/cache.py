"""`expertmesh cache …`: what the response cache saves, and forgetting. Speaks to a running mesh over HTTP."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Annotated, cast

import typer


def here(environment: Mapping[str, str]) -> str:
    """Where `expertmesh run` of the same environment answers."""
    host = environment.get("EXPERTMESH_HOST", "")
    if host in ("", "0.0.0.0", "::"):
        host = "127.0.0.1"
    scheme = "https" if environment.get("EXPERTMESH_TLS_CERTIFICATE") else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{environment.get('EXPERTMESH_HTTP_PORT') or '8000'}"


app = typer.Typer(help="The response cache: statistics, deletion.", no_args_is_help=True)

Url = Annotated[str, typer.Option(envvar="EXPERTMESH_URL", help="Where the mesh answers.")]
Key = Annotated[str, typer.Option("--key", envvar="EXPERTMESH_API_KEY", help="A key that may operate.")]
DEFAULT_URL = here(os.environ)
ROUTE = "/admin/cache"
TIMEOUT_S = 10.0


@app.command()
def stats(url: Url = DEFAULT_URL, key: Key = "") -> None:
    """Hits by kind, tokens and engine seconds saved, the store's state."""
    _show(call(url, key, "GET", ROUTE))


@app.command()
def purge(
    tenant: Annotated[str, typer.Option(help="Everything of this tenant.")] = "",
    person: Annotated[str, typer.Option(help="Only of this person (the `user` field) of the tenant.")] = "",
    model: Annotated[str, typer.Option(help="Everything that this model answered.")] = "",
    url: Url = DEFAULT_URL,
    key: Key = "",
) -> None:
    """Destroy kept answers, in every tier and in work under way."""
    if bool(tenant) == bool(model) or (person and not tenant):
        raise typer.BadParameter("name a --tenant (and perhaps its --person), or a --model")
    wish = {
        name: value for name, value in (("tenant", tenant), ("person", person), ("model", model)) if value
    }
    _show(call(url, key, "POST", f"{ROUTE}/purge", wish))


def call(
    url: str, key: str, method: str, path: str, body: object = None, *, timeout_s: float = TIMEOUT_S
) -> object:
    """An operator's request; what is wrong is said and ends the command with status 2."""
    data = json.dumps(body).encode() if body is not None else None
    headers = {"authorization": f"Bearer {key or _dev_key()}", "content-type": "application/json"}
    request = urllib.request.Request(url.rstrip("/") + path, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        typer.echo(f"error: {error.code}: {error.read().decode(errors='replace')}", err=True)
    except (OSError, ValueError) as error:
        typer.echo(
            f"error: {url} does not answer: {error} (EXPERTMESH_URL or --url says where it is)", err=True
        )
    raise typer.Exit(2)


def _dev_key() -> str:
    """The key that `make run` left, when there is one."""
    try:
        with open(os.path.join(".expertmesh", "dev-key"), encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def _show(answer: object, prefix: str = "") -> None:
    if isinstance(answer, dict):
        for name, value in cast("dict[str, object]", answer).items():
            if isinstance(value, list):
                value = {str(number): each for number, each in enumerate(cast("list[object]", value))}
            if isinstance(value, dict):
                _show(cast(object, value), f"{prefix}{name}.")
            else:
                typer.echo(f"{prefix}{name}\t{value}")
    else:
        typer.echo(f"{prefix}{answer}")
