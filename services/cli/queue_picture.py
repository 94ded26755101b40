"""The queue's figures as one screen of text.

Rules: pure; a metrics page in, a picture out. queue.py fetches and shows it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

MAX_TENANTS = 12
_SAMPLE = re.compile(r"^expertmesh_(\w+)(?:\{(.*)\})? (\S+)$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')

_GATEWAYS = tuple(f"queue_wait_seconds_{part}" for part in ("bucket", "count", "sum"))
"""How long gateways waited: theirs, and of requests that named no model too."""

Figures = Mapping[tuple[str, tuple[tuple[str, str], ...]], float]
"""(metric without prefix, sorted labels) → value."""


def parse(page: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """The queue's, the engines' and the pools' samples of a Prometheus text page."""
    figures: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for line in page.splitlines():
        sample = _SAMPLE.match(line)
        if (
            sample is not None
            and sample[1].startswith(("queue_", "engine_", "pool_"))
            and sample[1] not in _GATEWAYS
        ):
            figures[sample[1], tuple(sorted(_LABEL.findall(sample[2] or "")))] = float(sample[3])
    return figures


class _View:
    """One model's figures now and, where there is an earlier page, then."""

    def __init__(self, model: str, now: Figures, before: Figures | None, span_s: float) -> None:
        self.model, self.now, self.before, self.span_s = model, now, before, span_s

    def of(self, metric: str, **labels: str) -> float:
        return self.now.get((metric, tuple(sorted({"model": self.model, **labels}.items()))), 0.0)

    def gained(self, metric: str, **labels: str) -> float:
        """What a counter grew by since the earlier page; since the queue's start without one."""
        key = metric, tuple(sorted({"model": self.model, **labels}.items()))
        return max(0.0, self.now.get(key, 0.0) - (self.before or {}).get(key, 0.0))

    def rate(self, metric: str, **labels: str) -> str:
        if self.before is None or self.span_s <= 0:
            return "-"
        return f"{self.gained(metric, **labels) / self.span_s:.1f}"

    def values(self, label: str, metric: str, **labels: str) -> list[str]:
        found = (dict(pairs) for name, pairs in self.now if name == metric)
        wanted = {"model": self.model, **labels}
        return sorted({one[label] for one in found if label in one and wanted.items() <= one.items()})

    def wait(self, band: str, tenants: list[str]) -> str:
        """Mean seconds that those waited who got a lease; "-" when nobody did."""
        rows = [{"band": band, "tenant": tenant} for tenant in tenants]
        granted = sum(self.gained("queue_tenant_granted_total", **row) for row in rows)
        waited_s = sum(self.gained("queue_tenant_wait_seconds_total", **row) for row in rows)
        return f"{waited_s / granted:.2f}" if granted else "-"

    def refused(self, metric: str, **labels: str) -> str:
        reasons = self.values("reason", metric, **labels)
        counts = ((reason, self.of(metric, **labels, reason=reason)) for reason in reasons)
        return ", ".join(f"{reason} {count:.0f}" for reason, count in counts if count) or "-"


def draw(now: Figures, before: Figures | None = None, span_s: float = 0.0) -> str:
    """One screen: per model the slots, per band and tenant what waits, runs and is refused, per engine its load. Rates
    and waits are those since `before`, `span_s` ago."""
    models = sorted({dict(labels)["model"] for _, labels in now if "model" in dict(labels)})
    if not models:
        return "no queue figures yet: is the mesh ready?\n"
    return "\n".join(_model(_View(model, now, before, span_s)) for model in models)


def _model(view: _View) -> str:
    of = view.of
    lines = [
        f"{view.model}   slots {of('queue_capacity_slots'):.0f}   borrowed {of('queue_borrowed_slots'):.0f}   "
        f"saturation {of('queue_saturation_ratio'):.2f}",
        "",
        f"{'band':<12}{'waiting':>9}{'tokens':>11}{'oldest s':>10}{'wait s':>9}{'running':>9}{'reserved':>9}"
        f"{'granted/s':>11}{'preempted':>11}  refused",
    ]
    for band in view.values("band", "queue_waiting_requests"):
        tenants = view.values("tenant", "queue_tenant_waiting_requests", band=band)
        lines.append(
            f"{band:<12}{of('queue_waiting_requests', band=band):>9.0f}"
            f"{of('queue_waiting_tokens', band=band):>11.0f}{of('queue_oldest_age_seconds', band=band):>10.1f}"
            f"{view.wait(band, tenants):>9}{of('queue_running_requests', band=band):>9.0f}"
            f"{of('queue_reserved_slots', band=band):>9.0f}{view.rate('queue_granted_total', band=band):>11}"
            f"{of('queue_preempted_total', band=band):>11.0f}  {view.refused('queue_refused_total', band=band)}"
        )
    lines += ["", *_tenants(view)]
    lines += ["", f"{'engine':<24}{'up':>4}{'running':>9}{'depth':>7}{'of':>6}{'step ms':>9}"]
    for engine in view.values("engine", "engine_up"):
        step_ms = 1000 * of("engine_step_seconds", engine=engine)
        lines.append(
            f"{engine:<24}{'yes' if of('engine_up', engine=engine) else 'no':>4}"
            f"{of('engine_running_requests', engine=engine):>9.0f}{of('engine_depth_slots', engine=engine):>7.0f}"
            f"{of('engine_max_depth_slots', engine=engine):>6.0f}{step_ms:>9.1f}"
        )
    return "\n".join(lines) + "\n"


def _tenants(view: _View) -> list[str]:
    """The MAX_TENANTS that have most in the queue."""
    rows: list[tuple[float, str, str]] = []
    for band in view.values("band", "queue_tenant_waiting_requests"):
        for tenant in view.values("tenant", "queue_tenant_waiting_requests", band=band):
            waiting = view.of("queue_tenant_waiting_requests", band=band, tenant=tenant)
            running = view.of("queue_tenant_running_requests", band=band, tenant=tenant)
            rows.append((-waiting - running, tenant, band))
    rows.sort()
    lines = [
        f"{'tenant':<24}{'band':<12}{'waiting':>9}{'backlog s':>11}{'wait s':>9}{'running':>9}{'granted/s':>11}"
        f"{'preempted':>11}  refused"
    ]
    for _, tenant, band in rows[:MAX_TENANTS]:
        one = {"band": band, "tenant": tenant}
        lines.append(
            f"{tenant[:23]:<24}{band[:11]:<12}{view.of('queue_tenant_waiting_requests', **one):>9.0f}"
            f"{view.of('queue_tenant_backlog_age_seconds', **one):>11.1f}{view.wait(band, [tenant]):>9}"
            f"{view.of('queue_tenant_running_requests', **one):>9.0f}"
            f"{view.rate('queue_tenant_granted_total', **one):>11}"
            f"{view.of('queue_tenant_preempted_total', **one):>11.0f}"
            f"  {view.refused('queue_tenant_refused_total', **one)}"
        )
    if len(rows) > MAX_TENANTS:
        lines.append(f"… and {len(rows) - MAX_TENANTS} more")
    return lines
