"""A mesh in two processes, without Ray: the gateway alone, everything behind it in the other.

So that a benchmark can read what the gateway costs, in CPU and in memory, and no more. Queue, cache, journal and
simulated engines are those of tests/mesh/local_mesh.py; the gateway runs as its deployment runs it: on uvloop, with
standing objects out of the collector's sight.

    python -m load_tests.bench.mesh_processes parts FOLDER '{"experts": {…}}'
    python -m load_tests.bench.mesh_processes gateway FOLDER '{"experts": {…}}'     (reads FOLDER/parts.json)
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import uvloop

from services import memory
from services.experts.engine import Engine, ModelCard, Sink, StreamError
from services.gateway import json_key_store
from services.gateway.identity import Permission
from services.gateway.node import GatewayNode, Peers
from services.link.asyncio_link import Resolve
from services.postprocess.policy import Policy
from services.request import GenerateJob, TokenFrame
from tests.mesh.local_mesh import KEYS, LocalMesh, sim_config

from .processes import Group, wait_http

KEY = KEYS["acme"]


class Rig(NamedTuple):
    """A running mesh. When its parts are told to end they write FOLDER/slots.json (Slots)."""

    http_port: int
    grpc_port: int
    gateway_pid: int
    parts_pid: int


def start(group: Group, folder: Path, log: Path, **config: Any) -> Rig:
    """Start both and wait until tokens move. `config` as tests.mesh.local_mesh.sim_config takes it."""
    folder.mkdir(parents=True, exist_ok=True)
    json_key_store.add(
        folder / "keys.json", KEY, key_id="bench", tenant="acme", bands=("standard", "vip", "batch"),
        permissions=(Permission.GENERATE, Permission.METRICS),
    )  # fmt: skip
    text = json.dumps(config)
    module = "load_tests.bench.mesh_processes"
    parts = group.python(module, "parts", str(folder), text, pipe=True, log=log)
    assert parts.stdout is not None
    assert parts.stdout.readline() == "up\n", f"the parts did not come up, see {log}"
    gateway = group.python(module, "gateway", str(folder), text, pipe=True, log=log)
    assert gateway.stdout is not None
    http_port, grpc_port = map(int, gateway.stdout.readline().split())
    wait_http(f"http://127.0.0.1:{http_port}/readyz")
    return Rig(http_port, grpc_port, gateway.pid, parts.pid)


class Slots:
    """When each request took an engine's slot and when the slot was free again, by request id; times of
    CLOCK_MONOTONIC, which all processes share."""

    def __init__(self) -> None:
        self.taken: dict[str, float] = {}
        self.freed: dict[str, float] = {}

    def watch(self, engine: Engine) -> None:
        """Note what this engine is told and says."""
        submit, abort, ids = engine.submit, engine.abort, dict[int, str]()

        def free(stream_id: int) -> None:
            if (request_id := ids.pop(stream_id, None)) is not None:
                self.freed[request_id] = time.monotonic()

        def watched_submit(stream_id: int, job: GenerateJob, sink: Sink) -> None:
            ids[stream_id] = job.request_id
            self.taken[job.request_id] = time.monotonic()

            def watched(frame: TokenFrame | StreamError) -> None:
                sink(frame)
                if isinstance(frame, StreamError) or frame.finish is not None:
                    free(stream_id)

            submit(stream_id, job, watched)

        def watched_abort(stream_id: int) -> None:
            abort(stream_id)
            free(stream_id)

        engine.submit, engine.abort = watched_submit, watched_abort  # type: ignore[method-assign]


async def parts(folder: Path, config: dict[str, Any]) -> None:
    """Queue, cache, journal and engines."""
    mesh, slots = LocalMesh(sim_config(folder / "keys.json", **config)), Slots()
    await mesh.start(engines=2, gateways=0)
    info = mesh.ranks[0].info
    while info is None:
        await asyncio.sleep(0.01)
        info = mesh.ranks[0].info
    found = {
        "queue": [mesh.queue.address, mesh.queue.key.hex()],
        "cache": [mesh._cache_address, mesh.cache.key.hex()],  # pyright: ignore[reportPrivateUsage] # a rig's
        "journal": [mesh._journal_address, mesh.journal.key.hex()],  # pyright: ignore[reportPrivateUsage]
        "card": msgspec.to_builtins(ModelCard(info)),
    }
    (folder / "parts.json").write_text(json.dumps(found))
    for rank in mesh.ranks:
        slots.watch(rank.engine)
    print("up", flush=True)
    await until_told_to_end()
    left = {
        "running": sum(rank.engine.sample_load().running for rank in mesh.ranks),
        "taken": slots.taken,
        "freed": slots.freed,
    }
    (folder / "slots.json").write_text(json.dumps(left))


async def gateway(folder: Path, config: dict[str, Any]) -> None:
    """The gateway alone."""
    found = json.loads((folder / "parts.json").read_text())

    def at(name: str) -> Resolve:
        async def resolve() -> tuple[str, bytes]:
            address, key = found[name]
            return address, bytes.fromhex(key)

        return resolve

    async def card() -> ModelCard:
        return msgspec.convert(found["card"], ModelCard)

    async def policy(known: str, wait_s: float) -> Policy | None:
        await asyncio.sleep(wait_s)
        return None

    node = GatewayNode(
        sim_config(folder / "keys.json", **config),
        Peers(at("queue"), at("cache"), card, policy, journal=at("journal")),
    )
    await node.start()
    memory.settle()
    print(node.http_port, node.grpc_port, flush=True)
    await until_told_to_end()
    await node.stop(0.2)


async def until_told_to_end() -> None:
    """SIGTERM, SIGINT, or the end of standard input: whoever started us is gone."""
    ended, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    loop.add_reader(sys.stdin, ended.set)
    await ended.wait()


if __name__ == "__main__":
    role = parts if sys.argv[1] == "parts" else gateway
    uvloop.run(role(Path(sys.argv[2]), json.loads(sys.argv[3])))
