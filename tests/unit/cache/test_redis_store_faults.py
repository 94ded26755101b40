"""A Redis that dies, hangs, refuses or talks nonsense is a miss, never an exception; and it is asked again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager

import pytest

from services.cache.breaker import Breaker
from services.cache.key import CacheKey
from services.cache.redis_store import RedisStore
from services.cache.redis_wire import RedisWire, WireError, open_wire
from services.cache.store import Found, StoreDown, Ticket

KEY = CacheKey(b"k" * 48, b"p" * 8)
TICKET = Ticket(KEY, (b"", b"", b""))
PONG = b"+PONG\r\n"


class FakeRedis:
    """Answers PING while `alive`; everything else as `reply` says, or never (None). Counts commands."""

    def __init__(self) -> None:
        self.alive = True
        self.reply: bytes | None = None
        self.commands: list[bytes] = []
        self.url = ""
        self._writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        try:
            while (head := await reader.readline()).startswith(b"*"):
                words: list[bytes] = []
                for _ in range(int(head[1:])):
                    size = int((await reader.readline())[1:])
                    words.append((await reader.readexactly(size + 2))[:-2])
                self.commands.append(words[0])
                if words[0] == b"PING":
                    if self.alive:
                        writer.write(PONG)
                elif self.reply is not None:
                    writer.write(self.reply)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def hang_up(self) -> None:
        for writer in self._writers:
            writer.transport.abort()


@asynccontextmanager
async def fake(timeout_s: float = 0.02) -> AsyncIterator[tuple[FakeRedis, RedisStore]]:
    redis = FakeRedis()
    server = await asyncio.start_server(redis.serve, "127.0.0.1", 0)
    redis.url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    store = RedisStore(redis.url, bytes(32), read_timeout_s=timeout_s, breaker=Breaker(silent_s=0.0))
    await store.start()
    try:
        yield redis, store
    finally:
        await store.close()
        redis.hang_up()
        server.close()


def run(work: Coroutine[object, object, None]) -> None:
    asyncio.run(work)


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0)


def test_a_hung_store_is_left_alone_after_three_look_ups() -> None:
    async def go() -> None:
        async with fake() as (redis, store):
            assert store.stats().up
            for _ in range(3):
                assert await store.get(KEY) == Found()
            asked = len(redis.commands)
            redis.alive = False
            assert not store.stats().up
            for _ in range(100):
                assert await store.get(KEY) == Found()
            assert not await store.put(TICKET, b"x", 10)
            assert len([command for command in redis.commands[asked:] if command != b"PING"]) == 0
            with pytest.raises(StoreDown):
                await store.purge(b"s")

    run(go())


NONSENSE = [
    b"+OK\r\n+OK\r\n",
    b"*1\r\n$1\r\nx\r\n:1\r\n",
    b"*4\r\n$3\r\nabc\r\n$-1\r\n$-1\r\n$-1\r\n$3\r\nabc\r\n",
    b"-LOADING it is loading\r\n:1\r\n",
    b":5\r\n:5\r\n",
    b"!!! not redis\r\n",
    b"*4\r\n:1\r\n:2\r\n:3\r\n:4\r\n:5\r\n",
]


@pytest.mark.parametrize("nonsense", NONSENSE)
@pytest.mark.parametrize("call", ["get", "put"])
def test_nonsense_is_a_miss(nonsense: bytes, call: str) -> None:
    async def go() -> None:
        async with fake() as (redis, store):
            redis.reply = nonsense
            for _ in range(5):
                if call == "get":
                    assert (await store.get(KEY)).value is None
                else:
                    assert not await store.put(TICKET, b"x", 10)

    run(go())


def test_a_full_store_is_still_read() -> None:
    async def go() -> None:
        async with fake() as (redis, store):
            redis.reply = b"-OOM command not allowed when used memory > 'maxmemory'.\r\n"
            for _ in range(10):
                assert not await store.put(TICKET, b"x", 10)
            assert store.stats().up
            assert store.stats().refused_puts == 10

    run(go())


def test_a_lost_connection_comes_back_and_pays_the_purges_it_owes() -> None:
    async def go() -> None:
        async with fake(timeout_s=0.5) as (redis, store):
            redis.hang_up()
            await until(lambda: not store.stats().up)
            with pytest.raises(StoreDown):
                await store.purge(KEY.scopes[2])
            assert await store.get(KEY) == Found()
            redis.commands.clear()
            redis.reply = b":1\r\n"
            await until(lambda: store.stats().up)
            await until(lambda: b"SET" in redis.commands)
            assert [command for command in redis.commands if command != b"PING"][:2] == [b"UNLINK", b"SET"]

    run(go())


def test_the_wire_matches_late_and_concurrent_replies() -> None:
    async def go() -> None:
        async with fake() as (redis, _):
            wire = await open_wire(redis.url, 1.0)
            redis.reply = b":7\r\n"
            replies: list[Awaitable[list[object]]] = [wire.call([(b"GET", b"a")] * n, 1.0) for n in (1, 3, 2)]
            assert [len(each) for each in await asyncio.gather(*replies)] == [1, 3, 2]
            redis.reply = None
            with pytest.raises(WireError, match="in time"):
                await wire.call([(b"GET", b"a")], 0.001)
            redis.hang_up()
            await wire.lost
            with pytest.raises(WireError, match="not connected"):
                await wire.call([(b"GET", b"a")], 1.0)
            assert isinstance(wire, RedisWire)

    run(go())
