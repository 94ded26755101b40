"""Several gateways share a port, and the kernel gives each that listens its part of all connections.

1. A gateway that begins beside others listens once it can serve: until then everybody reaches one that can.
2. Where that takes too long it listens anyway, and says what is missing: it may be the only one.
3. One alone listens at once.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from services.experts.engine import ModelCard
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
            await gateway.stop()

    asyncio.run(main())
