"""`expertmesh cost`: what engines cost, who used them, and what nobody used. Reads a gateway's metrics page.

Rules: fetching is queue.py's; `picture` is pure. Counters are the queue's: they begin anew when it does, and when a
tenant's name changes hands; Prometheus keeps what was.
"""

from __future__ import annotations

import typer

from .cache import DEFAULT_URL, Key, Url
from .queue import fetch
from .queue_picture import Figures, parse

HOUR_S = 3600.0
MAX_TENANTS = 20


def cost(url: Url = DEFAULT_URL, key: Key = "") -> None:
    """What the mesh's engines have cost since its queue began, by pool of machines and by tenant. Prices come from
    EXPERTMESH_PRICES."""
    typer.echo(picture(parse(fetch(url, key))))


def picture(figures: Figures) -> str:
    """As text; one line where nothing has a price."""
    pools: dict[tuple[str, str, str], dict[str, float]] = {}
    tenants: dict[str, float] = {}
    for (metric, pairs), value in figures.items():
        labels = dict(pairs)
        if metric.startswith("pool_"):
            whose = labels["pool"] or "(no label)", labels["capacity_type"] or "-", labels["currency"]
            row = pools.setdefault(whose, {})
            row[metric] = row.get(metric, 0.0) + value
        elif metric == "queue_tenant_cost_total":
            tenants[labels["tenant"]] = tenants.get(labels["tenant"], 0.0) + value
    if not pools:
        return "No engine has a price: say what an accelerator costs per hour with EXPERTMESH_PRICES (docs/costs.md)."
    lines = [
        f"{'pool':16} {'bought':10} {'acc. hours':>10} {'paid':>12} {'used':>18} {'unused':>12} {'saved':>18}"
    ]
    for (pool, bought, currency), row in sorted(pools.items()):
        paid, used = row.get("pool_cost_total", 0.0), row.get("pool_cost_used_total", 0.0)
        listed = row.get("pool_list_cost_total", 0.0)
        lines.append(
            f"{pool[:16]:16} {bought[:10]:10} {row.get('pool_accelerator_seconds_total', 0.0) / HOUR_S:10.2f} "
            f"{paid:8.2f} {currency} {_part(used, paid):>18} {max(0.0, paid - used):12.2f} "
            f"{_part(listed - paid, listed):>18}"
        )
    lines += ["", f"{'tenant':40} {'used':>18}"]
    used = sum(tenants.values())
    ranked = sorted(tenants.items(), key=lambda one: (-one[1], one[0]))
    lines += [f"{tenant[:40]:40} {_part(value, used):>18}" for tenant, value in ranked[:MAX_TENANTS]]
    if len(ranked) > MAX_TENANTS:
        lines.append(f"… and {len(ranked) - MAX_TENANTS} more")
    return "\n".join(lines)


def _part(value: float, whole: float) -> str:
    return f"{value:.4f} ({100 * value / whole:3.0f}%)" if whole > 0 else f"{value:.4f}"
