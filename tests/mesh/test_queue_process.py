"""The queue's process and its keeper, as real processes.

1. A keeper starts a queue that links; the next keeper finds the same one, whatever became of the first.
2. A queue that is killed, or hangs, is replaced by the next question.
3. It ends when it is told to, and with the process that it was told to watch.
4. Changes that make no sense come back as ConfigError.
5. When the queue and whoever kept it are killed together, the standby goes on at the same address, with the same key:
   clients find it without asking anybody, and so does the next keeper. It ends as the queue would have.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
import uvloop

from services.config import QueueConfig
from services.errors import ConfigError
from services.link.asyncio_link import connect
from services.queue import keeper as keeper_module
from services.queue.client import QueueClient
from services.queue.keeper import Keeper, Question, peer
from services.queue.limits import ChangeLimits


def keeper(name: str, pid: int | None = None) -> Keeper:
    return Keeper(QueueConfig(), name, os.getpid() if pid is None else pid)


def pid_of(one: Keeper) -> int:
    assert one._streams is not None
    return peer(one._streams[1].get_extra_info("socket"))[0]


def run(scenario: Callable[[str], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(60):
            await scenario(f"expertmesh-test-{secrets.token_hex(8)}")

    uvloop.run(main())  # as in a replica of Serve


def something_that_lives() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)


async def ended(pid: int) -> None:
    """Polls: it is not our child perhaps."""
    while alive(pid):
        await asyncio.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_1_the_next_keeper_finds_the_same_queue() -> None:
    async def scenario(name: str) -> None:
        first, second = keeper(name), keeper(name)
        address, key = await first.endpoint()
        client = QueueClient(first.endpoint, "g", on_fence=lambda *_: None)
        link = await connect(address, key, client, "g")
        first._drop(hangs=False)  # as if it were killed: its connection is cut
        assert await second.endpoint() == (address, key)
        assert client.connected
        assert await second.ask(Question("snapshot")) == []
        link.close("done")
        await second.stop()

    run(scenario)


def test_2_a_queue_that_died_or_hangs_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(name: str) -> None:
        one = keeper(name)
        addresses = {(await one.endpoint())[0]}
        for how in (signal.SIGKILL, signal.SIGSTOP):
            pid = pid_of(one)
            os.kill(pid, how)
            addresses.add((await one.endpoint())[0])
            await ended(pid)
        assert len(addresses) == 3
        await one.stop()

    monkeypatch.setattr(keeper_module, "ANSWER_WITHIN_S", 2.0)
    run(scenario)


def test_3_it_ends_with_what_it_watches_and_when_it_is_told_to() -> None:
    async def scenario(name: str) -> None:
        watched = something_that_lives()
        one = keeper(name, watched.pid)
        await one.endpoint()
        pid = pid_of(one)
        watched.kill()
        watched.wait()
        await ended(pid)
        other = keeper(name)
        await other.endpoint()
        pid = pid_of(other)
        await other.stop()
        await ended(pid)

    run(scenario)


def test_4_a_refused_change_says_why() -> None:
    async def scenario(name: str) -> None:
        one = keeper(name)
        wish = msgspec.msgpack.encode(ChangeLimits({"max_queued": -1}))
        with pytest.raises(ConfigError, match="max_queued"):
            await one.ask(Question("operate", wish))
        wish = msgspec.msgpack.encode(ChangeLimits({"max_queued": 9}))
        assert (await one.ask(Question("operate", wish)))["changed"] == {"max_queued": 9}
        await one.stop()

    run(scenario)


async def standby_of(one: Keeper) -> int:
    while not (pid := await one.ask(Question("standby"))):
        await asyncio.sleep(0.05)
    return pid


def test_5_a_standby_goes_on_where_the_queue_was() -> None:
    async def scenario(name: str) -> None:
        asked = 0

        async def once() -> tuple[str, bytes]:
            nonlocal asked
            asked += 1
            assert asked == 1, "whoever knew where the queue is died with it"
            return await first.endpoint()

        first, second = keeper(name), keeper(name)
        endpoint = await first.endpoint()
        active, standby = pid_of(first), await standby_of(first)
        client = QueueClient(once, "g", on_fence=lambda *_: None)
        client.start()
        while not client.connected:
            await asyncio.sleep(0.01)
        os.kill(active, signal.SIGKILL)
        first._drop(hangs=False)
        while client.reconnects < 1:
            await asyncio.sleep(0.01)
        assert await second.endpoint() == endpoint
        assert pid_of(second) == standby
        await client.stop()
        await second.stop()
        await ended(standby)
        assert not those_named(name)

    run(scenario)


def those_named(name: str) -> list[str]:
    """Command lines of living processes with this name in them."""
    found: list[str] = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            found.append(file.read_bytes().decode(errors="replace"))
    return [line for line in found if name in line]
