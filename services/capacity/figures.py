"""The pools in figures, for metrics and `Capacity.status` (pure). docs/metrics.md lists them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from services.capacity.demand import ModelDemand
from services.capacity.nodes import PoolView

NODES_METRIC = "expertmesh_capacity_nodes"
NODES_TEXT = "Nodes of a pool, by state: wanted, desired, starting, serving, leaving, lent, without_engine."


def pool_figures(
    views: Mapping[str, PoolView],
    wanted: Mapping[str, int],
    lent: Mapping[str, int],
    models: Iterable[ModelDemand],
) -> dict[str, dict[str, int]]:
    """By pool and state: `wanted` by demand before floors and ceilings (absent where nobody speaks for the pool),
    `desired` of the group, nodes that are `starting`, `serving` or `leaving`, `lent` by the fallback pool in its
    place, and serving ones `without_engine`: machines that are paid for and serve nobody."""
    busy = {engine.node for model in models for engine in model.engines if engine.up}
    found: dict[str, dict[str, int]] = {}
    for name, view in views.items():
        found[name] = {
            "desired": view.desired,
            "starting": len(view.starting),
            "serving": len(view.serving),
            "leaving": len(view.leaving),
            "lent": lent.get(name, 0),
            "without_engine": sum(1 for node in view.serving if node not in busy),
        }
        if name in wanted:
            found[name]["wanted"] = wanted[name]
    return found
