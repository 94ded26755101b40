"""`expertmesh queue`: the priority queue, live in the terminal, and its limits. Reads a gateway's metrics page; limits
go through `POST /admin/queue`.

Rules: fetching at the edge, parsing and drawing pure. There is one authority, so any gateway shows the whole queue.
"""

from __future__ import annotations

import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from .cache import call

CLEAR = "\x1b[H\x1b[2J"
TIMEOUT_S = 5.0
_SAMPLE = re.compile(r"^expertmesh_(\w+)(?:\{(.*)\})? (\S+)$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')

Figures = Mapping[tuple[str, tuple[tuple[str, str], ...]], float]
"""(metric without prefix, sorted labels) → value."""


def parse(page: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """The queue's and the engines' samples of a Prometheus text page."""
    figures: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for line in page.splitlines():
        sample = _SAMPLE.match(line)
        if sample is not None and sample[1].startswith(("queue_", "engine_")):
            figures[sample[1], tuple(sorted(_LABEL.findall(sample[2] or "")))] = float(sample[3])
    return figures


def draw(now: Figures, before: Figures | None = None, span_s: float = 0.0) -> str:
    """One screen: per model the slots, per band what waits and runs, per engine its load. Rates need `before`."""
    models = sorted({dict(labels)["model"] for _, labels in now if "model" in dict(labels)})
    if not models:
        return "no queue figures yet: is the mesh ready?\n"
    return "\n".join(_model(model, now, before, span_s) for model in models)


def _model(model: str, now: Figures, before: Figures | None, span_s: float) -> str:
    def of(metric: str, **labels: str) -> float:
        return now.get((metric, tuple(sorted({"model": model, **labels}.items()))), 0.0)

    def rate(metric: str, **labels: str) -> str:
        if before is None or span_s <= 0:
            return "-"
        old = before.get((metric, tuple(sorted({"model": model, **labels}.items()))), 0.0)
        return f"{max(0.0, of(metric, **labels) - old) / span_s:.1f}"

    def values(label: str, metric: str) -> list[str]:
        found = (dict(labels) for name, labels in now if name == metric)
        return sorted({one[label] for one in found if one.get("model") == model and label in one})

    lines = [
        f"{model}   slots {of('queue_capacity_slots'):.0f}   borrowed {of('queue_borrowed_slots'):.0f}   "
        f"saturation {of('queue_saturation_ratio'):.2f}",
        "",
        f"{'band':<12}{'waiting':>9}{'tokens':>11}{'oldest s':>10}{'running':>9}{'granted/s':>11}"
        f"{'preempted':>11}  refused",
    ]
    for band in values("band", "queue_waiting_requests"):
        refused = ", ".join(
            f"{reason} {of('queue_refused_total', band=band, reason=reason):.0f}"
            for reason in values("reason", "queue_refused_total")
            if of("queue_refused_total", band=band, reason=reason)
        )
        lines.append(
            f"{band:<12}{of('queue_waiting_requests', band=band):>9.0f}"
            f"{of('queue_waiting_tokens', band=band):>11.0f}"
            f"{of('queue_oldest_age_seconds', band=band):>10.1f}"
            f"{of('queue_running_requests', band=band):>9.0f}{rate('queue_granted_total', band=band):>11}"
            f"{of('queue_preempted_total', band=band):>11.0f}  {refused or '-'}"
        )
    lines += ["", f"{'engine':<24}{'up':>4}{'running':>9}"]
    for engine in values("engine", "engine_up"):
        up = "yes" if of("engine_up", engine=engine) else "no"
        running = sum(
            value
            for (metric, labels), value in now.items()
            if metric.startswith("engine_running") and dict(labels).get("engine") == engine
        )
        lines.append(f"{engine:<24}{up:>4}{running:>9.0f}")
    return "\n".join(lines) + "\n"


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
    url: Annotated[str, typer.Option(envvar="EXPERTMESH_URL", help="Where a gateway answers.")] = (
        "http://127.0.0.1:8000"
    ),
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
        now, now_s = parse(_fetch(url, key)), time.monotonic()
        typer.echo(("" if once else CLEAR) + draw(now, before, now_s - before_s))
        if once:
            return
        before, before_s = now, now_s
        try:
            time.sleep(every_s)
        except KeyboardInterrupt:
            return


def _fetch(url: str, key: str) -> str:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
        request = urllib.request.Request(url.rstrip("/") + "/metrics", headers=headers)
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            return response.read().decode()
    except urllib.error.HTTPError as error:
        typer.echo(f"error: {error.code}: {error.read().decode(errors='replace')}", err=True)
    except OSError as error:
        typer.echo(f"error: {url} does not answer: {error}", err=True)
    raise typer.Exit(2)
