"""The verdict: samples of a run against its service level objectives.

Rules: pure; numbers in, a verdict out. Percentiles are exact (nearest rank, over all samples, no buckets). A
request that failed or was refused misses every objective; goodput counts only those that met all of them, so
a system cannot look good by refusing (docs: field facts, "How to measure").
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import msgspec


class Slo(msgspec.Struct, frozen=True):
    """Objectives. Times are milliseconds; a bound of 0 is no bound. `goodput_share` is the least share of
    requests that must meet the time to first token and their own worst gap."""

    ttft_p95_ms: float = 0.0
    itl_p95_ms: float = 0.0
    e2e_p95_ms: float = 0.0
    error_share: float = 0.01
    goodput_share: float = 0.9
    min_requests: int = 10


PRESETS: dict[str, Slo] = {
    # Two vLLM ranks on two laptop cores, eight users: about 40 tokens a second for all of them together.
    "laptop": Slo(ttft_p95_ms=4000, itl_p95_ms=600),
    "sim": Slo(ttft_p95_ms=250, itl_p95_ms=60),
    "interactive": Slo(ttft_p95_ms=1000, itl_p95_ms=100),
}


class Answered(msgspec.Struct, frozen=True):
    """One request as its user saw it, in milliseconds from the moment it was due. `error` is empty for an
    answer; `gaps_ms` are all gaps between its tokens."""

    ttft_ms: float
    e2e_ms: float
    gaps_ms: tuple[float, ...] = ()
    num_tokens: int = 0
    error: str = ""


class Row(msgspec.Struct, frozen=True):
    """One objective: what was measured, what was allowed."""

    name: str
    measured: float
    bound: float
    met: bool


class Verdict(msgspec.Struct, frozen=True):
    """All objectives, and figures that have none."""

    rows: tuple[Row, ...]
    figures: dict[str, float]

    @property
    def met(self) -> bool:
        return all(row.met for row in self.rows)

    def __str__(self) -> str:
        lines = [
            f"  {'met   ' if row.met else 'MISSED'}  {row.name:22s} {row.measured:10.4g}  (bound {row.bound:g})"
            for row in self.rows
        ]
        lines += [f"          {name:22s} {value:10.4g}" for name, value in self.figures.items()]
        return "\n".join([f"SLOs {'met' if self.met else 'MISSED'}", *lines])


def judge(samples: Sequence[Answered], slo: Slo, duration_s: float) -> Verdict:
    """Hold `samples`, collected over `duration_s` seconds, against `slo`."""
    good = [one for one in samples if not one.error]
    gaps = [gap for one in good for gap in one.gaps_ms]
    num, seconds = max(1, len(samples)), max(duration_s, 1e-9)
    met_all = sum(_meets(one, slo) for one in good)
    error_share = (len(samples) - len(good)) / num
    rows = [
        Row("requests", len(samples), slo.min_requests, len(samples) >= slo.min_requests),
        Row("error share", error_share, slo.error_share, error_share <= slo.error_share),
        Row("goodput share", met_all / num, slo.goodput_share, met_all / num >= slo.goodput_share),
    ]
    timed = (
        ("TTFT p95 ms", [one.ttft_ms for one in good], slo.ttft_p95_ms),
        ("ITL p95 ms", gaps, slo.itl_p95_ms),
        ("E2E p95 ms", [one.e2e_ms for one in good], slo.e2e_p95_ms),
    )
    for name, values, bound in timed:
        if bound and (values or name != "ITL p95 ms"):
            measured = percentile(values, 0.95)
            rows.append(Row(name, measured, bound, measured <= bound))
    figures = {
        "requests/s": len(samples) / seconds,
        "goodput requests/s": met_all / seconds,
        "tokens/s": sum(one.num_tokens for one in good) / seconds,
        "TTFT p50 ms": percentile([one.ttft_ms for one in good], 0.5),
        "ITL p50 ms": percentile(gaps, 0.5),
        "ITL max ms": max(gaps, default=0.0),
    }
    return Verdict(tuple(rows), figures)


def percentile(values: Sequence[float], share: float) -> float:
    """Nearest-rank percentile: the smallest value that at least `share` of all are not above. Infinite
    without values: what never happened was not fast."""
    if not values:
        return float("inf")
    return sorted(values)[max(0, ceil(share * len(values)) - 1)]


def _meets(one: Answered, slo: Slo) -> bool:
    slow_start = slo.ttft_p95_ms and one.ttft_ms > slo.ttft_p95_ms
    slow_end = slo.e2e_p95_ms and one.e2e_ms > slo.e2e_p95_ms
    stalled = slo.itl_p95_ms and one.gaps_ms and percentile(one.gaps_ms, 0.95) > slo.itl_p95_ms
    return not (slow_start or slow_end or stalled)
