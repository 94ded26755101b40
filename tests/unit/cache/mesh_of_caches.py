"""A Cache authority and some gateways' clients in one event loop, over real links on loopback, for the
tests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from services.cache.authority import Authority
from services.cache.client import CacheClient
from services.cache.key import CacheKey, CacheKeys, ModelIdentity
from services.cache.memory_store import MemoryStore
from services.cache.seat import Following, Leading, Seat
from services.cache.store import Found, ResponseStore
from services.cache.value import CachedAnswer, CachedChoice
from services.config import CacheConfig
from services.errors import MeshError
from services.link.messages import FeedPart
from services.request import InferenceRequest, SamplingParams, pack_ids


class AwaitedStore(MemoryStore):
    """Whose `get` tests replace by one that waits."""

    def look(self, key: CacheKey, told: Callable[[Found], None]) -> None:
        task = asyncio.create_task(self.get(key))
        task.add_done_callback(lambda task: None if task.cancelled() else told(task.result()))


KEYS = CacheKeys(bytes(range(32)))
CONFIG = CacheConfig(store_timeout_s=5.0)
ANSWER = CachedAnswer((CachedChoice("one two three", 3, "stop"),), 4, 3, generation_s=0.5)


def key_of(prompt: int = 1, tenant: str = "acme", person: str = "", model: str = "m") -> CacheKey:
    sampling = SamplingParams(max_tokens=8, temperature=0.0)
    request = InferenceRequest(kind="chat", model=model, sampling=sampling, person=person)
    return KEYS.key(tenant, ModelIdentity(model, "r"), request, [pack_ids([prompt])])


def part(number: int, finish: str | None = None) -> FeedPart:
    return FeedPart(0, (number,), finish)


class RunningClock:
    """The machine's time, as look-ups wait by it, which tests put forward."""

    def __init__(self) -> None:
        self._ahead_s = 0.0

    def now_s(self) -> float:
        return time.monotonic() + self._ahead_s

    def wall_s(self) -> float:
        return time.time() + self._ahead_s

    def advance(self, by_s: float) -> None:
        self._ahead_s += by_s


class Watcher:
    """A Follower that remembers."""

    def __init__(self) -> None:
        self.parts: list[FeedPart] = []
        self.hit: CachedAnswer | None = None
        self.promoted = False
        self.yielded = False
        self.error: MeshError | None = None

    def cache_parts(self, parts: tuple[FeedPart, ...]) -> None:
        assert self.hit is None
        assert not self.promoted
        assert self.error is None
        self.parts.extend(parts)

    def cache_hit(self, answer: CachedAnswer) -> None:
        assert not self.parts
        self.hit = answer

    def cache_promoted(self) -> None:
        self.promoted = True

    def cache_yield(self) -> None:
        self.yielded = True

    def cache_failed(self, error: MeshError) -> None:
        self.error = error


class Mesh:
    """`gateways` clients of one authority. `until` waits for a condition by letting the loop turn."""

    def __init__(self, store: ResponseStore | None, gateways: int, config: CacheConfig) -> None:
        self.clock = RunningClock()
        self.store = store or MemoryStore(clock=self.clock)
        self.config = config
        self.authority = Authority(self.store, config, self.clock)
        self.gateways = [CacheClient(config, self.resolve, f"g{i}", self.clock) for i in range(gateways)]
        self.address = ""

    async def resolve(self) -> tuple[str, bytes]:
        return self.address, self.authority.key

    async def until(self, holds: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            while not holds():
                await asyncio.sleep(0)

    async def linked(self) -> None:
        await self.until(lambda: all(gateway.linked for gateway in self.gateways))

    async def replace_authority(self) -> None:
        """The Cache dies and another takes its place; the store stays."""
        store, self.authority = self.authority, Authority(self.store, self.config, self.clock)
        store._desk.close("died")  # pyright: ignore[reportPrivateUsage]
        await self.until(lambda: not any(gateway.linked for gateway in self.gateways))
        self.address = await self.authority.start()

    async def lead(self, gateway: int, key: CacheKey) -> Seat:
        found = await self.gateways[gateway].lookup(key)
        assert isinstance(found, Leading), found
        return found.seat

    async def follow(self, gateway: int, key: CacheKey) -> tuple[Seat, Watcher]:
        found = await self.gateways[gateway].lookup(key)
        assert isinstance(found, Following), found
        watcher = Watcher()
        found.seat.attach(watcher)
        return found.seat, watcher

    async def settled(self, stored: int) -> None:
        await self.until(lambda: self.authority.stats().stored >= stored)


@asynccontextmanager
async def running(made: Mesh) -> AsyncIterator[None]:
    """Its links are up; everything is stopped at the end."""
    made.address = await made.authority.start()
    for gateway in made.gateways:
        gateway.start()
    await made.linked()
    try:
        yield
    finally:
        for gateway in made.gateways:
            await gateway.stop()
        await made.authority.stop()


@asynccontextmanager
async def mesh(
    gateways: int = 2, store: ResponseStore | None = None, config: CacheConfig = CONFIG
) -> AsyncIterator[Mesh]:
    made = Mesh(store, gateways, config)
    async with running(made):
        yield made
