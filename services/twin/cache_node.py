"""The response cache's process in the twin: the real authority and flights over a store that may be out.

Rules: replaces sockets and Redis. The store outlives the process, as Redis does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..cache.authority import Authority
from ..cache.key import CacheKey
from ..cache.memory_store import MemoryStore
from ..cache.store import Found, StoreStats, Ticket
from ..config import CacheConfig
from .authority_node import AuthorityNode
from .kernel import Process, Simulation
from .network import Network

OUT_S = 0.002
"""A store that does not answer costs its adapter's bound, not more (services/cache/store.py, invariant 4)."""


class FailingStore:
    """A ResponseStore that can be out: then every look-up is a miss without a ticket and nothing is kept."""

    def __init__(self, clock: Process) -> None:
        self._inner = MemoryStore(clock=clock)
        self.out = False

    async def get(self, key: CacheKey) -> Found:
        if self.out:
            await asyncio.sleep(OUT_S)
            return Found()
        return await self._inner.get(key)

    def look(self, key: CacheKey, told: Callable[[Found], None]) -> None:
        if self.out:
            asyncio.get_running_loop().call_later(OUT_S, told, Found())
        else:
            self._inner.look(key, told)

    async def put(self, ticket: Ticket, value: bytes, ttl_s: float) -> bool:
        if self.out:
            await asyncio.sleep(OUT_S)
            return False
        return await self._inner.put(ticket, value, ttl_s)

    async def purge(self, scope: bytes) -> None:
        await self._inner.purge(scope)

    def stats(self) -> StoreStats:
        return self._inner.stats()

    async def close(self) -> None:
        """It outlives the process."""

    def come_back(self) -> None:
        self.out = False


class CacheNode(AuthorityNode[Authority]):
    """When it is killed flights are forgotten, answers are not."""

    def __init__(self, sim: Simulation, network: Network, name: str, config: CacheConfig) -> None:
        super().__init__(sim, network, name)
        self.config = config
        self.store = FailingStore(self)

    def boot(self) -> None:
        self.authority = Authority(self.store, self.config, clock=self)
        self.authority._expire()  # type: ignore[reportPrivateUsage]  # what `start` does apart from listening
        self.authority._boot = f"life {self.incarnation}"  # type: ignore[reportPrivateUsage]  # random otherwise
