"""A mesh in two processes, without Ray: the gateway alone, everything behind it in the other.

So that a benchmark can read what the gateway costs, in CPU and in memory, and no more. Queue, cache, journal and
simulated engines are those of tests/mesh/local_mesh.py; the gateway runs as its deployment runs it: on uvloop, with
standing objects out of the collector's sight.

    python -m load_tests.bench.mesh_processes parts FOLDER '{"experts": {…}}'
    python -m load_tests.bench.mesh_processes gateway FOLDER '{"experts": {…}}'     (reads FOLDER/parts.json)
"""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import sys
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import uvloop

from services.experts.engine import ModelCard
from services.gateway import json_key_store
from services.gateway.identity import Permission
from services.gateway.node import GatewayNode, Peers
from services.link.asyncio_link import Resolve
from services.postprocess.policy import Policy
from tests.mesh.local_mesh import KEYS, LocalMesh, sim_config

from .processes import Group, wait_http

KEY = KEYS["acme"]
YOUNG_OBJECTS = 20_000  # as services/gateway/deployment.py


class Rig(NamedTuple):
    """A running mesh. `parts` answers one JSON line for each line that it is told: how many streams run."""

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


async def parts(folder: Path, config: dict[str, Any]) -> None:
    """Queue, cache, journal and engines."""
    mesh = LocalMesh(sim_config(folder / "keys.json", **config))
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
    print("up", flush=True)
    await until_told_to_end()


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
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 20, 20)
    print(node.http_port, node.grpc_port, flush=True)
    await until_told_to_end()
    await node.stop(0.2)


async def until_told_to_end() -> None:
    """SIGTERM or SIGINT."""
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    await ended.wait()


if __name__ == "__main__":
    role = parts if sys.argv[1] == "parts" else gateway
    uvloop.run(role(Path(sys.argv[2]), json.loads(sys.argv[3])))
