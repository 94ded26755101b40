"""SIGTERM to one process of a running mesh: what it has is finished, it ends, and another comes.

Left to Ray, a replica ends when Serve's long poll is answered, which on this mesh takes half an hour (conftest.py), and
is not told before. A stream here takes two to four seconds.
"""

from __future__ import annotations

import asyncio
import os
import signal

import httpx
import pytest

from load_tests.survival.attached import Attached
from load_tests.survival.streams import KINDS, Stream
from tests.cluster.fleet.test_gateway_kill import both_keep
from tests.cluster.stack import Stack

pytestmark = pytest.mark.cluster

STREAMS, TOKENS = 24, 100
GONE_WITHIN_S = 25.0
BACK_WITHIN_S = 60.0


async def told_to_go(stack: Stack, name: str) -> None:
    """SIGTERM to one process of this name; returns when it is gone."""
    pid = stack.pids(name)[0]
    os.kill(pid, signal.SIGTERM)
    async with asyncio.timeout(GONE_WITHIN_S):
        while pid in await asyncio.to_thread(stack.pids, name):
            await asyncio.sleep(0.05)


async def streams_under_way(stack: Stack, salt: str) -> tuple[list[Stream], asyncio.Future[list[None]]]:
    """Of every class, each with a token already, those that are answered whole excepted."""
    streams = [Stream(KINDS[number % len(KINDS)], number, TOKENS, salt=salt) for number in range(STREAMS)]
    running = asyncio.gather(*(stream.run(stack.http_port, stack.key) for stream in streams))
    async with asyncio.timeout(BACK_WITHIN_S):
        while not all(one.event_s or one.kind == "unary" or one.error for one in streams):
            await asyncio.sleep(0.02)
    return streams, running


def test_an_engine_finishes_what_it_has_and_goes(fleet: Stack) -> None:
    name, mesh = "ServeReplica:default:ExpertShards", Attached(fleet)

    async def main() -> list[Stream]:
        (revision, before), *_ = (await mesh.status())["revisions"].items()
        streams, running = await streams_under_way(fleet, "engine ")
        await told_to_go(fleet, name)
        await running
        await mesh.until_engines(revision, before["engines"], BACK_WITHIN_S)
        return streams

    engines = len(fleet.pids(name))
    assert [stream.error for stream in asyncio.run(main())] == [""] * STREAMS
    assert len(fleet.pids(name)) == engines


def test_a_gateway_finishes_what_it_has_and_goes(fleet: Stack) -> None:
    """Its clients need no key: nobody's connection breaks."""
    name = "ServeReplica:default:Gateway"

    async def main() -> list[Stream]:
        streams, running = await streams_under_way(fleet, "gateway ")
        await told_to_go(fleet, name)
        await running
        limits = httpx.Limits(max_keepalive_connections=0)
        headers = {"authorization": f"Bearer {fleet.key}"}
        async with httpx.AsyncClient(base_url=fleet.base_url, headers=headers, limits=limits) as client:
            async with asyncio.timeout(BACK_WITHIN_S):
                await both_keep(client)
        return streams

    assert [stream.error for stream in asyncio.run(main())] == [""] * STREAMS
    assert len(fleet.pids(name)) == 2
