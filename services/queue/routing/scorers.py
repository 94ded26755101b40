"""How good: 0 (bad) to 1 (best) for one request on one engine that the filters let through.

Rules: pure, cheap (they run for every engine on every grant). Weights are the picker's.
"""

from __future__ import annotations

from ..engines import EngineState
from ..entry import Entry


def idle_share(engine: EngineState) -> float:
    """Part of the engine's learnt depth that is free."""
    return 1.0 - engine.used / engine.capacity if engine.capacity > 0 else 0.0


def prefix_share(entry: Entry, blocks: int) -> float:
    """Part of the prompt's blocks that the engine probably holds."""
    return blocks / len(entry.prefix) if entry.prefix else 0.0


def own_pool(entry: Entry, engine: EngineState, pool_of: dict[str, int]) -> float:
    """Own reserved replica first, shared ones next, another band's last."""
    owner = pool_of.get(engine.pool)
    if owner is None:
        return 0.5
    return 1.0 if owner == entry.band else 0.0
