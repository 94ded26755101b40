"""What engines cost, and who used them: money from time and prices (pure). ADR 0040.

Rules: prices in, sums out; grants nothing and is asked by nobody who does. Without prices nothing is counted.

An engine costs its price for as long as it is registered. A lease uses the share of it that it keeps from others: one
of its slots, or its part of the KV cache, whichever is more (dominant share: Ghodsi et al., NSDI '11). So a request
costs the same whoever runs beside it, and what nobody used is a figure of its own: paid less used. Money is in
`QueueConfig.currency`; nothing is rounded here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from ..config import PriceConfig

if TYPE_CHECKING:
    from .engines import EngineState

HOUR_S = 3600.0
ANY = "*"


class PoolCost(msgspec.Struct, gc=False):
    """Machines of one pool and kind, since this queue began: `paid` for its engines, `used` by leases, `listed`: what
    the same would have been on demand. `accelerator_s`: seconds of registered engines times their accelerators."""

    pool: str
    capacity_type: str
    accelerator_s: float = 0.0
    paid: float = 0.0
    used: float = 0.0
    listed: float = 0.0


class Costs:
    """All pools of one queue."""

    def __init__(self, prices: Iterable[PriceConfig]) -> None:
        self._prices = {price.name: price for price in prices}
        self._counted_s: float | None = None
        self.pools: dict[tuple[str, str], PoolCost] = {}

    def meet(self, engine: EngineState) -> None:
        """An engine registered: what it costs from now on."""
        price = self._price(engine.machines, engine.capacity_type)
        if price is None:
            return
        engine.price_per_s = price.per_hour * engine.accelerators / HOUR_S
        engine.list_per_s = max(price.list_per_hour, price.per_hour) * engine.accelerators / HOUR_S
        whose = engine.machines, engine.capacity_type
        engine.bill = self.pools.get(whose)
        if engine.bill is None:
            engine.bill = self.pools[whose] = PoolCost(*whose)

    def tick(self, engines: Iterable[EngineState], now_s: float) -> None:
        """Time passed for everyone who is registered."""
        passed_s = now_s - self._counted_s if self._counted_s is not None else 0.0
        self._counted_s = now_s
        if passed_s <= 0.0:
            return
        for engine in engines:
            if engine.bill is not None:
                engine.bill.accelerator_s += passed_s * engine.accelerators
                engine.bill.paid += passed_s * engine.price_per_s
                engine.bill.listed += passed_s * engine.list_per_s

    def _price(self, pool: str, capacity_type: str) -> PriceConfig | None:
        """The most exact one: of the pool and kind, of the pool, of the kind anywhere, of anything."""
        for name in (f"{pool}@{capacity_type}", pool, f"{ANY}@{capacity_type}", ANY):
            if name in self._prices:
                return self._prices[name]
        return None


def share(slots: int, kv_tokens: int, wanted_tokens: int) -> float:
    """The part of an engine that one lease keeps from others, 0 to 1: of `slots`, or of its KV cache."""
    of_cache = wanted_tokens / kv_tokens if kv_tokens > 0 else 0.0
    return min(1.0, max(1.0 / max(1, slots), of_cache))
