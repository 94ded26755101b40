"""Several gateways share a port, and the kernel gives each that listens its part of all connections.

1. A gateway that begins beside others listens once it can serve: until then everybody reaches one that can.
2. Where that takes too long it listens anyway, and says what is missing: it may be the only one.
3. One alone listens at once, and tells whoever it refuses when to come back, each another time.
4. Keys whose record names a priority band that the mesh does not have are named in the log when keys are read, and told
   whose fault it is.
"""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

import pytest

from services.client.grpc_client import CallFailed, MeshClient, pb
from services.experts.engine import ModelCard
from services.gateway import json_key_store
from services.gateway import node as node_module
from services.gateway.node import GatewayNode, Peers
from services.ports import free_port
from tests.mesh.local_mesh import LocalMesh, local_mesh


class Beginning:
    """A gateway whose engines do not say what they serve until `told`."""

    def __init__(self, mesh: LocalMesh, replicas: int) -> None:
        self.asked, self.told = asyncio.Event(), asyncio.Event()
        ports = {"http_port": free_port(), "grpc_port": free_port(), "replicas": replicas}
        gateway = mesh.config.gateway.model_copy(update=ports)

        async def card() -> ModelCard:
            self.asked.set()
            await self.told.wait()
            return await mesh._card()

        peers = Peers(mesh._queue, mesh._cache, card, mesh._policy, journal=mesh._find_journal)
        self.node = GatewayNode(mesh.config.model_copy(update={"gateway": gateway}), peers)
        self.port = ports["http_port"]
        self.starting = asyncio.create_task(self.node.start())

    async def readyz(self) -> bytes:
        """The status line. Raises ConnectionRefusedError."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(b"GET /readyz HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")
        line = await reader.readline()
        writer.close()
        return line

    async def stop(self) -> None:
        await self.starting
        await self.node.stop(0.0)


def test_it_listens_when_it_can_serve(tmp_path: Path) -> None:
    async def main() -> None:
        async with local_mesh(tmp_path, gateways=0) as mesh:
            gateway = Beginning(mesh, replicas=2)
            await gateway.asked.wait()
            with pytest.raises(ConnectionRefusedError):
                await gateway.readyz()
            gateway.told.set()
            await gateway.starting
            assert gateway.node.able
            assert await gateway.readyz()
            await gateway.stop()

    asyncio.run(main())


def test_or_when_that_takes_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_module, "LISTEN_ANYWAY_S", 0.0)

    async def main() -> None:
        async with local_mesh(tmp_path, gateways=0) as mesh:
            gateway = Beginning(mesh, replicas=2)
            await gateway.starting
            assert not gateway.node.able
            assert b"503" in await gateway.readyz()
            await gateway.stop()

    asyncio.run(main())


def test_one_alone_listens_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with local_mesh(tmp_path, gateways=0) as mesh:
            gateway = Beginning(mesh, replicas=1)
            await gateway.starting
            assert b"503" in await gateway.readyz()
            mesh.gateways.append(gateway.node)
            told: list[int] = []
            for _ in range(8):
                refused = await mesh.post("/v1/completions", {"model": "sim", "prompt": "x"})
                assert refused.status == 503
                assert json.loads(await refused.read())["error"]["code"] == "not_ready"
                told.append(int(refused.headers["retry-after-ms"]))
            assert len(set(told)) == 8, told
            gateway.told.set()
            await mesh.until_ready()
            assert (await mesh.post("/v1/completions", {"model": "sim", "prompt": "x"})).status == 200

    asyncio.run(main())


def test_a_key_with_a_band_that_does_not_exist(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def add(key_id: str, *bands: str) -> None:
        json_key_store.add(tmp_path / "keys.json", key_id, key_id=key_id, tenant="t", bands=bands)

    add("k-gold", "gold", "standard")

    async def main() -> None:
        async with local_mesh(tmp_path) as mesh:
            (line,) = [one.getMessage() for one in caplog.records if one.levelno == logging.ERROR]
            assert "k-gold (gold)" in line and "it has vip, standard, batch" in line
            body = {"model": "sim", "prompt": "x", "max_tokens": 2}
            refused = await mesh.post("/v1/completions", body, tenant="k-gold")
            error = json.loads(await refused.read())["error"]
            assert (refused.status, error["param"]) == (403, "priority_band")
            assert "'gold'" in error["message"] and "operator's key file" in error["message"]
            asked = {"x-priority-band": "standard"}
            await mesh.json("/v1/completions", body, tenant="k-gold", headers=asked)
            async with MeshClient(f"127.0.0.1:{mesh.gateways[0].grpc_port}", "k-gold") as client:
                with pytest.raises(CallFailed, match="operator's key file") as caught:
                    await client.text(pb.TextRequest(model="sim", prompts=[pb.Prompt(text="x")]))
                assert (caught.value.reason, caught.value.param) == ("FORBIDDEN", "priority_band")
            caplog.clear()
            add("k-silver", "silver")
            async with asyncio.timeout(5):
                while not caplog.records:
                    await asyncio.sleep(0.02)
            assert "k-gold (gold); k-silver (silver)" in caplog.records[0].getMessage()

    with caplog.at_level(logging.ERROR, logger="services.gateway.node"):
        asyncio.run(main())
