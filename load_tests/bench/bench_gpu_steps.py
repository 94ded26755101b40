"""Where a request's time goes, by the gateways' own step histogram."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from contextlib import suppress

from .bench_gpu_mesh import KEY


def step_sums(port: int, tries: int = 24) -> dict[str, tuple[float, int]]:
    """Seconds spent in each step of the pipeline, and how often, over all gateways: each answers for itself, and which
    one does is the kernel's choice, so several connections are made."""
    pages: dict[str, dict[str, tuple[float, int]]] = {}
    for _ in range(tries):
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/metrics",
            headers={"Authorization": f"Bearer {KEY}", "Connection": "close"},
        )
        with suppress(urllib.error.URLError, OSError), urllib.request.urlopen(request, timeout=2) as answer:
            text = answer.read().decode()
            found: dict[str, tuple[float, int]] = {}
            for step, total in re.findall(
                r'^expertmesh_step_seconds_sum\{[^}]*step="(\w+)"[^}]*\} (\S+)', text, re.M
            ):
                count = re.search(
                    rf'^expertmesh_step_seconds_count\{{[^}}]*step="{step}"[^}}]*\}} (\S+)', text, re.M
                )
                found[step] = (float(total), int(float(count[1])) if count else 0)
            pages[str(found)] = found
    merged: dict[str, tuple[float, int]] = {}
    for found in pages.values():
        for step, (total, count) in found.items():
            before = merged.get(step, (0.0, 0))
            merged[step] = (before[0] + total, before[1] + count)
    return merged


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
