"""A mesh with one full engine, and a remote server, in a process of its own, that takes what it refuses."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from services.config_remote import RemoteConfig
from services.gateway import json_key_store
from services.gateway.overflow import Overflow
from services.quota.allowance import NOTHING_LIMITED, Allowance
from tests.mesh.local_mesh import LocalMesh, local_mesh

GUEST = "key-of-guest"
"""Of tenant guest: may leave."""
SECRET_THERE = "sk-there-0123456789abcdef"
CHAT = "/v1/chat/completions"


def chat(text: str = "hello", **more: Any) -> dict[str, Any]:
    return {"model": "sim", "messages": [{"role": "user", "content": text}], "max_tokens": 32} | more


class Noted:
    """What the remote server was sent."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._path.read_text().splitlines()]


@asynccontextmanager
async def remote_server(folder: Path, *pair: Path) -> AsyncIterator[tuple[int, Noted]]:
    """Its port, and what it notes."""
    log = folder / "remote.jsonl"
    log.touch()
    script = Path(__file__).with_name("remote_server.py")
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(script), str(log), *map(str, pair), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        yield int(await process.stdout.readline()), Noted(log)
    finally:
        process.kill()
        await process.wait()


def remote_config(folder: Path, port: int, scheme: str = "http", **more: Any) -> RemoteConfig:
    key_file = folder / "remote.key"
    key_file.write_text(SECRET_THERE + "\n")
    values = {"first_timeout_s": 5.0, "idle_timeout_s": 5.0, "pause_s": 60.0} | more
    return RemoteConfig(
        url=f"{scheme}://127.0.0.1:{port}/v1", model="big-one", key_file=str(key_file), **values
    )


@asynccontextmanager
async def overflowing(
    folder: Path,
    remote: RemoteConfig,
    *,
    full: bool = True,
    allowance: Allowance = NOTHING_LIMITED,
    **parts: Any,
) -> AsyncIterator[LocalMesh]:
    """One engine with one slot; `full`: it runs somebody's answer of minutes, and the only place to wait is taken."""
    json_key_store.add(
        folder / "keys.json", GUEST, key_id="guest", tenant="guest", may_leave=True, allowance=allowance
    )
    gateway = parts.pop("gateway", {}) | {"remote": remote}
    experts = {"max_num_seqs": 1, "sim_step_s": 0.1} | parts.pop("experts", {})
    queue = {"max_queued": 1} | parts.pop("queue", {})
    async with local_mesh(folder, engines=1, gateway=gateway, experts=experts, queue=queue, **parts) as mesh:
        # Once proven is enough: no canary takes a place in between, and no slow host makes this mesh unready.
        mesh.gateways[0].mesh.readiness._proof_s = 1e9
        if full:
            await fill(mesh)
        yield mesh


async def fill(mesh: LocalMesh) -> None:
    """Two answers of minutes, for a key that may not leave: one runs, one waits. Both vanish with the mesh."""
    client = mesh.gateways[0].mesh.queue
    for number, done in ((1, lambda: client.num_held >= 1), (2, lambda: client.num_waiting >= 1)):
        hold = await mesh.send_only(
            CHAT, chat(f"blocker {number}", max_tokens=3000, stream=True, priority_band="standard")
        )
        mesh.__dict__.setdefault("_blockers", []).append(hold)
        await until(done)


async def until(done: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not done():
            await asyncio.sleep(0.01)


def overflow_of(mesh: LocalMesh) -> Overflow:
    found = mesh.gateways[0].mesh.overflow
    assert isinstance(found, Overflow)
    return found


def figures(mesh: LocalMesh, name: str) -> dict[str, float]:
    """One metric, by the values of its labels in the order of their names."""
    found: dict[str, float] = {}
    for line in mesh.gateways[0].mesh.telemetry.render().decode().splitlines():
        if line.startswith(f"expertmesh_{name}{{"):
            labels, _, value = line.rpartition(" ")
            found[" ".join(part.split('"')[1] for part in labels.split(","))] = float(value)
    return found
