"""Ranks as `make run` has them on CPUs: forks of one process that has imported vLLM, which is most of a start."""

from __future__ import annotations

import asyncio
import os
import secrets
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from services.config import ExpertsConfig
from services.experts import linux_processes, remote_rank
from services.experts.commission import Commission
from services.experts.groups import RankPlace, split_cores
from services.experts.linux_processes import Process
from services.experts.remote_rank import RemoteRank
from services.ports import free_port
from tests.cluster.stack import wait_for

Endpoint = tuple[str, bytes]
GONE_WITHIN_S = 20.0


class Importer(NamedTuple):
    """A process that has imported vLLM, or does."""

    name: str
    pid: int

    def below(self) -> list[Process]:
        """Its ranks, and theirs."""
        return linux_processes.with_descendants([self.pid])[1:]

    def cores(self) -> list[Process]:
        """Those of its processes that are engine cores."""
        return [one for one in self.below() if _comm(one).startswith("VLLM::")]


def _comm(one: Process) -> str:
    return Path(f"/proc/{one.pid}/comm").read_text()


def heard(said: IO[bytes]) -> bytes:
    """The beginning of what a process wrote."""
    return os.pread(said.fileno(), 10_000, 0)


@contextmanager
def importer() -> Iterator[Importer]:
    name = secrets.token_hex(8)
    with tempfile.TemporaryFile() as said:
        process = remote_rank.start_server(name, os.getpid(), said)
        try:
            # Or a rank that finds nobody starts a server of its own under this name, and ours ends.
            wait_for(lambda: b"listening" in heard(said) or process.poll() is not None, "the importer", 60)
            assert process.poll() is None, heard(said).decode(errors="replace")
            yield Importer(name, process.pid)
        finally:
            process.terminate()
            process.wait()


async def nowhere() -> Endpoint:
    raise OSError("there is no queue")


@asynccontextmanager
async def group(
    config: ExpertsConfig, server: Importer, on_lost: Callable[[str], None]
) -> AsyncIterator[list[Endpoint]]:
    """The ranks of one group, while it lasts; none of their processes outlives it. A core each, or one for each worker:
    only then are engine cores forks too."""
    port = free_port()
    cores = sorted(os.sched_getaffinity(0))[: config.shards * config.tensor_parallel]
    shares = split_cores(cores, config.shards)
    ranks = [
        RemoteRank(
            Commission(
                config.model_dump_json().encode(),
                RankPlace(number, config.shards, "127.0.0.1", port, shares[number]),
                f"rank-{number}",
                "127.0.0.1",
            ),
            server.name,
            os.getpid(),
            resolve_queue=nowhere,
            on_lost=on_lost,
        )
        for number in range(config.shards)
    ]
    try:
        await asyncio.gather(*(rank.start() for rank in ranks))
        yield [await rank.endpoint() for rank in ranks]
    finally:
        await asyncio.gather(*(rank.stop() for rank in ranks))
        await gone(server)


async def gone(server: Importer) -> None:
    """Until nothing is left of ranks. Raises TimeoutError."""
    async with asyncio.timeout(GONE_WITHIN_S):
        while server.below():
            await asyncio.sleep(0.05)
