"""`expertmesh queue`: the priority queue, live in the terminal, and its limits. Reads a gateway's metrics page; limits
go through `POST /admin/queue`.

Rules: fetching and showing; queue_picture.py draws. There is one authority, so any gateway shows the whole queue.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from .cache import DEFAULT_URL, call
from .queue_picture import Figures, draw, parse

CLEAR = "\x1b[H\x1b[2J"
TIMEOUT_S = 5.0


def wish(settings: Sequence[str], reset: bool) -> dict[str, object]:
    """`name=value` and `band.name=value` as the queue wants them (queue/limits.py). Raises typer.BadParameter."""
    changes: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        try:
            value = json.loads(text)
        except ValueError:
            equals, value = "", None
        if not equals:
            raise typer.BadParameter(f"{setting!r} is not of the form name=number or band.name=number")
        band, dot, field = name.rpartition(".")
        if dot:
            changes.setdefault("bands", {}).setdefault(band, {})[field] = value
        else:
            changes[name] = value
    return {"type": "limits", "changes": changes, "reset": reset}


def queue(
    url: Annotated[str, typer.Option(envvar="EXPERTMESH_URL", help="Where a gateway answers.")] = DEFAULT_URL,
    key: Annotated[
        str, typer.Option("--key", envvar="EXPERTMESH_API_KEY", help="Not needed on loopback.")
    ] = "",
    every_s: Annotated[float, typer.Option("--every", min=0.2, help="Seconds between pictures.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="One picture, then end.")] = False,
    limits: Annotated[bool, typer.Option("--limits", help="Show the limits in force.")] = False,
    change: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Change a limit now: max_tenant_queued=50, or of a band, batch.max_queued=10."
        ),
    ] = None,
    reset: Annotated[
        bool, typer.Option("--reset", help="Back to the configured limits (before --set).")
    ] = False,
) -> None:
    """What waits, runs, borrows and is refused, per band, until Ctrl-C; or the limits (with a key that may operate)."""
    if limits or change or reset:
        typer.echo(json.dumps(call(url, key, "POST", "/admin/queue", wish(change or [], reset)), indent=2))
        return
    before: Figures | None = None
    before_s = 0.0
    while True:
        now, now_s = parse(fetch(url, key)), time.monotonic()
        typer.echo(("" if once else CLEAR) + draw(now, before, now_s - before_s))
        if once:
            return
        before, before_s = now, now_s
        try:
            time.sleep(every_s)
        except KeyboardInterrupt:
            return


def fetch(url: str, key: str) -> str:
    """A gateway's metrics page. Says why not, and exits with 2."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
        request = urllib.request.Request(url.rstrip("/") + "/metrics", headers=headers)
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            return response.read().decode()
    except urllib.error.HTTPError as error:
        typer.echo(f"error: {error.code}: {error.read().decode(errors='replace')}", err=True)
    except OSError as error:
        typer.echo(
            f"error: {url} does not answer: {error} (EXPERTMESH_URL or --url says where it is)", err=True
        )
    raise typer.Exit(2)
