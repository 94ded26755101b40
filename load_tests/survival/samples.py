"""What processes hold: memory, files, sockets, threads; and the slope of a series.

Rules: /proc and arithmetic only.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

_TITLES = (
    (re.compile(r"ServeReplica:\w+:(\w+)"), "{0}"),
    (re.compile(r"(ServeController)"), "{0}"),
    (re.compile(r"services\.queue\.uvloop_process"), "queue process"),
    (re.compile(r"(gcs_server|raylet|valkey-server|redis-server)"), "{0}"),
    (re.compile(r"ray::(\S+)"), "ray {0}"),
    (re.compile(r"ray/_private/(\S+)\.py"), "ray {0}"),
    (re.compile(r"ray/(?:dashboard|_private)\S*/(\w+)\.py"), "ray {0}"),
    (re.compile(r"(default_worker|setup_worker)\.py"), "ray worker"),
    (re.compile(r"bin/expertmesh"), "expertmesh run"),
)


class Held(msgspec.Struct, frozen=True):
    """One process at one moment. `memory_mb`: anonymous resident memory, which is what leaks."""

    at_s: float
    memory_mb: float
    files: int
    sockets: int
    threads: int


def held(pid: int, at_s: float) -> Held | None:
    """None when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        links = [os.readlink(entry.path) for entry in os.scandir(f"/proc/{pid}/fd")]
    except OSError:
        return None
    sockets = sum(link.startswith("socket:") for link in links)
    fields = dict(re.findall(r"^(RssAnon|Threads):\s+(\d+)", status, re.MULTILINE))
    return Held(
        at_s, int(fields.get("RssAnon", 0)) / 1024, len(links) - sockets, sockets, int(fields["Threads"])
    )


def role(title: str) -> str:
    """What a process is, by its command line."""
    for pattern, name in _TITLES:
        if found := pattern.search(title):
            return name.format(*found.groups())
    return "other"


def slope(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Least squares: units per second, and its standard error (0 for fewer than three points)."""
    n = len(points)
    if n < 3:
        return 0.0, 0.0
    mean_x, mean_y = sum(x for x, _ in points) / n, sum(y for _, y in points) / n
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    if spread == 0.0:
        return 0.0, 0.0
    rise = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
    residual = sum((y - mean_y - rise * (x - mean_x)) ** 2 for x, y in points)
    return rise, (residual / (n - 2) / spread) ** 0.5
