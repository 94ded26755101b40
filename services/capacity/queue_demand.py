"""What the queue wants of the pools, kept up to date: a shell around `demand` that asks the queue each round.

Rules: how it is asked (over a Serve handle, or directly in tests) is the owner's business; what it means is `demand`'s.
A queue that is away for a moment has not lost its demand: the last answer holds for `demand_patience_s`. After that
nobody speaks for the pools, and they keep their sizes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from types import MappingProxyType

from services.capacity import demand
from services.capacity.nodes import PoolView
from services.clock import Clock
from services.config_capacity import CapacityConfig, PoolConfig

Ask = Callable[[], object]
"""The queue's snapshots of all models, as plain data. Blocks, and may raise while the queue is away."""


class QueueDemand:
    """Nodes wanted by pool. Called by one thread; `want` by any."""

    def __init__(self, config: CapacityConfig, ask: Ask, clock: Clock) -> None:
        self._config, self._ask, self._clock = config, ask, clock
        self._memory = demand.Memory()
        self._models: tuple[demand.ModelDemand, ...] = ()
        self._heard_s: float | None = None
        self._lock = threading.Lock()
        self._least: Mapping[str, int] = {}
        self.failure = ""
        """Why the last question had no answer."""
        self.wanted: Mapping[str, int] = MappingProxyType({})
        """What was said last."""

    def want(self, nodes_by_pool: Mapping[str, int]) -> None:
        """At least so many nodes from now on, whatever the queue holds: ahead of a peak that an operator knows of.
        Pools that are not named have no such minimum any more. Raises ValueError for an unknown pool."""
        unknown = set(nodes_by_pool) - set(self._config.pools)
        if unknown:
            raise ValueError(f"no pool named {', '.join(sorted(unknown))}")
        with self._lock:
            self._least = dict(nodes_by_pool)

    @property
    def models(self) -> tuple[demand.ModelDemand, ...]:
        """What the queue said last."""
        return self._models

    @property
    def least(self) -> Mapping[str, int]:
        """What `want` was told last."""
        with self._lock:
            return dict(self._least)

    def __call__(self, pools: Mapping[str, PoolConfig], views: Mapping[str, PoolView]) -> Mapping[str, int]:
        """Ask, and plan. `pools` as their groups allow, `views` by pool. Pools without an entry keep their size."""
        now_s = self._clock.now_s()
        try:
            self._models = demand.read(self._ask())
            self._heard_s, self.failure = self._clock.now_s(), ""
        except Exception as error:  # whatever the way to the queue does: the machines stay
            self.failure = f"the queue does not say what it needs: {error!r}"
        wanted: dict[str, int] = {}
        policy = self._config.scale
        if self._heard_s is not None and now_s - self._heard_s <= policy.demand_patience_s:
            self._memory, wanted = demand.plan(self._memory, pools, views, self._models, now_s, policy)
        for name, nodes in self.least.items():
            view = views.get(name)
            kept = view.desired - len(view.leaving) if view is not None else 0
            wanted[name] = max(nodes, wanted.get(name, kept))
        self.wanted = MappingProxyType(wanted)
        return wanted
