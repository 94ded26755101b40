"""A rank in a process apart and its keeper, over their socket, with the simulated engine.

1. The keeper learns address, key and what the engine is once a token was generated; what cannot run is its ConfigError.
2. Health, drain and stop do what they do for a rank in the same process.
3. Where the queue is, is asked through the keeper, and again when nobody knew.
4. A rank ends with its keeper's connection; its end, unasked, is told to the keeper once.
5. The process that forks ranks serves one name, whoever is there first, and ends with the process that it watches.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvloop

from services.config import ExpertsConfig, QueueConfig
from services.errors import ConfigError, EngineLost
from services.experts.commission import Commission
from services.experts.groups import RankPlace
from services.experts.hosted_rank import HostedRank
from services.experts.remote_rank import RemoteRank
from services.experts.sim_engine import SimEngine
from services.link.unix_frames import abstract_socket
from services.queue.authority import QueueAuthority


class Host:
    """In place of the fork server: hosts ranks in this process."""

    def __init__(self) -> None:
        self.name = f"expertmesh-test-{secrets.token_hex(8)}"
        self.ranks: list[HostedRank] = []
        self.codes: list[int] = []
        self.served = asyncio.Event()

    async def listen(self) -> None:
        sock = abstract_socket()
        sock.bind(f"\0{self.name}")
        self._server = await asyncio.start_unix_server(self._host, sock=sock)

    async def _host(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        rank = HostedRank(reader, writer)
        self.ranks.append(rank)
        self.codes.append(await rank.serve())
        writer.close()  # a process that ends
        self.served.set()

    def remote(
        self, find: Callable[[], Awaitable[tuple[str, bytes]]], lost: list[str], **settings: Any
    ) -> RemoteRank:
        config = ExpertsConfig(
            engine="sim", model_name="sim", sim_step_s=0.001, stuck_after_s=0.3, **settings
        )
        commission = Commission(config.model_dump_json().encode(), RankPlace(), "rank-0", "127.0.0.1")
        return RemoteRank(commission, self.name, os.getpid(), resolve_queue=find, on_lost=lost.append)


def run(scenario: Callable[[Host], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(60):
            host = Host()
            await host.listen()
            await scenario(host)

    uvloop.run(main())


async def nowhere() -> tuple[str, bytes]:
    raise OSError("no queue yet")


def test_a_rank_says_what_it_is_and_does_what_it_is_asked() -> None:
    async def scenario(host: Host) -> None:
        lost: list[str] = []
        rank = host.remote(nowhere, lost, max_num_seqs=7)
        await rank.check_health()  # while it starts there is nothing to say
        info = await rank.start()
        assert info.max_num_seqs == 7
        address, key = await rank.endpoint()
        assert (address, key) == (host.ranks[0]._rank.address, host.ranks[0]._rank.key)
        await rank.check_health()
        await rank.drain(1.0)
        await rank.stop()
        await host.served.wait()
        await rank.stop()
        assert host.codes == [0] and lost == []

    run(scenario)


def test_what_cannot_run_is_refused_in_the_engines_words(monkeypatch: pytest.MonkeyPatch) -> None:
    async def start(self: SimEngine) -> None:
        raise ConfigError("no such weights")

    monkeypatch.setattr(SimEngine, "start", start)

    async def scenario(host: Host) -> None:
        lost: list[str] = []
        rank = host.remote(nowhere, lost)
        with pytest.raises(ConfigError, match="no such weights"):
            await rank.start()
        await host.served.wait()
        assert host.codes == [1] and lost == []

    run(scenario)


def test_a_wedged_engine_is_lost_to_its_keeper_once() -> None:
    async def scenario(host: Host) -> None:
        lost: list[str] = []
        rank = host.remote(nowhere, lost)
        await rank.start()
        engine = host.ranks[0]._rank.engine
        assert isinstance(engine, SimEngine)
        engine.wedge()
        host.ranks[0]._rank._worked_s = float("-inf")  # idle for long enough to be asked for a token
        with pytest.raises(EngineLost):
            await rank.check_health()
        await host.served.wait()  # fenced: it ends itself
        while not lost:
            await asyncio.sleep(0)
        with pytest.raises(EngineLost):
            await rank.check_health()
        assert len(lost) == 1

    run(scenario)


def test_the_queue_is_found_through_the_keeper() -> None:
    async def scenario(host: Host) -> None:
        queue = QueueAuthority(QueueConfig())
        await queue.start()
        asked = 0

        async def find() -> tuple[str, bytes]:
            nonlocal asked
            asked += 1
            if asked == 1:
                raise OSError("no queue yet")
            return queue.address, queue.key

        rank = host.remote(find, [])
        await rank.start()
        while not any(one.engines for one in queue.snapshot()):
            await asyncio.sleep(0.01)
        assert queue.snapshot()[0].engines[0].engine_id == "rank-0"
        assert asked == 2
        await rank.stop()
        queue.close()

    run(scenario)


def test_a_rank_ends_with_its_keeper() -> None:
    async def scenario(host: Host) -> None:
        rank = host.remote(nowhere, [])
        await rank.start()
        assert rank._writer is not None
        rank._stopping = True  # it is killed: it sees and says nothing any more
        rank._writer.close()
        await host.served.wait()
        assert host.codes == [0]

    run(scenario)


FORK_SERVER = """
import sys
from services.experts import vllm_fork_server
sys.exit(vllm_fork_server.main(sys.argv[1], int(sys.argv[2]), preload=()))
"""


def fork_server(name: str, owner: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", FORK_SERVER, name, str(owner)], stdout=subprocess.PIPE)


def test_one_name_has_one_server_and_it_ends_with_its_owner() -> None:
    """Without vLLM, which takes 15 s to import; tests/cluster/test_first_light.py has it."""
    name = f"expertmesh-test-{secrets.token_hex(8)}"
    owner = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        _one_name(name, owner)
    finally:
        owner.kill()  # whoever serves the name ends with it
        owner.wait()


def _one_name(name: str, owner: subprocess.Popen[bytes]) -> None:
    first = fork_server(name, owner.pid)
    assert first.stdout is not None and first.stdout.readline() == b"listening\n"
    second = fork_server(name, owner.pid)
    assert second.stdout is not None and second.stdout.readline() == b""
    assert second.wait(60) == 0

    async def one_rank() -> None:
        host = Host()
        host.name = name
        lost: list[str] = []
        rank = host.remote(nowhere, lost)
        info = await rank.start()
        assert info.model == "sim"
        await rank.stop()

    uvloop.run(one_rank())
    assert owner.stdin is not None
    owner.stdin.close()
    owner.wait()
    assert first.wait(60) == 0
