"""Where a request's time goes, by the gateways' own step histogram."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from contextlib import suppress

from .bench_gpu_mesh import KEY

_LINE = re.compile(r"^expertmesh_step_seconds_(sum|count)\{([^}]*)\} (\S+)", re.M)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


def step_sums(port: int, tries: int = 24) -> dict[str, tuple[float, int]]:
    """Seconds spent in each step of the pipeline, and how often, over all gateways. A page has all of them, the others'
    a little late; who answers is the kernel's choice, so several
    connections are made and the latest of each is kept."""
    latest: dict[tuple[str, str], tuple[int, float]] = {}
    for _ in range(tries):
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/metrics",
            headers={"Authorization": f"Bearer {KEY}", "Connection": "close"},
        )
        with suppress(urllib.error.URLError, OSError), urllib.request.urlopen(request, timeout=2) as answer:
            for key, found in _of_page(answer.read().decode()).items():
                latest[key] = max(latest.get(key, (0, 0.0)), found)
    merged: dict[str, tuple[float, int]] = {}
    for (_, step), (count, total) in latest.items():
        before = merged.get(step, (0.0, 0))
        merged[step] = (before[0] + total, before[1] + count)
    return merged


def _of_page(text: str) -> dict[tuple[str, str], tuple[int, float]]:
    """(count, seconds) by gateway and step."""
    found: dict[tuple[str, str], tuple[int, float]] = {}
    for kind, labels, value in _LINE.findall(text):
        named = dict(_LABEL.findall(labels))
        key = (named.get("gateway", ""), named.get("step", ""))
        count, total = found.get(key, (0, 0.0))
        found[key] = (int(float(value)), total) if kind == "count" else (count, float(value))
    return found


def step_means_ms(
    before: dict[str, tuple[float, int]], after: dict[str, tuple[float, int]]
) -> dict[str, float]:
    """Mean milliseconds of each step between two looks."""
    found: dict[str, float] = {}
    for step, (total, count) in after.items():
        had = before.get(step, (0.0, 0))
        if count > had[1]:
            found[step] = 1e3 * (total - had[0]) / (count - had[1])
    return found
