"""Who is cut again and again on gRPC's port is kept out; its library accepts by itself, so the port is looked at.

1. A connection that sent something and had no call with a key is an offence when it is gone; enough of them, and the
   address is shut out, on both ports.
2. One whose calls have a key, or that asks for health, is none, and goes on while others of its address are cut.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from load_tests.bench.hostile_clients import PREFACE, SETTINGS, frame
from services.client.grpc_client import MeshClient, pb, user
from services.gateway import linux_door
from services.gateway.doorman import Doorman
from tests.mesh.local_mesh import KEYS, LocalMesh, local_mesh

GOOD = pb.ChatRequest(
    model="sim", messages=[user("Hello")], sampling=pb.Sampling(max_tokens=3, temperature=1.0)
)
SYN_SENT = 2


def door_of(mesh: LocalMesh) -> Doorman:
    return mesh.gateways[0]._door  # pyright: ignore[reportPrivateUsage]


def is_turned_away(port: int) -> bool:
    with closing(socket.socket()) as sock:
        sock.setblocking(False)
        assert sock.connect_ex(("127.0.0.1", port)) in (0, errno.EINPROGRESS)
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == SYN_SENT


async def come_and_go(mesh: LocalMesh, port: int) -> None:
    """Seen, and gone without a call: gRPC's own threads have closed it when this returns."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    mine = writer.get_extra_info("sockname")[1]
    writer.write(PREFACE + frame(SETTINGS, 0, 0))
    await reader.readexactly(9)  # it has read ours
    await door_of(mesh).sweep()
    writer.close()
    await writer.wait_closed()
    async with asyncio.timeout(20):
        while mine in peers(port):
            await asyncio.sleep(0.01)
    await door_of(mesh).sweep()


def peers(port: int) -> set[int]:
    """Ports of those who are connected to one of ours."""
    found = (linux_door.peer_of(descriptor, port) for descriptor in linux_door.descriptors())
    return {peer.port for peer in found if peer is not None}


@pytest.mark.parametrize("known", [False, True])
def test_come_and_go(tmp_path: Path, known: bool) -> None:
    async def main() -> None:
        async with local_mesh(tmp_path, engines=1, limits={"max_offences_per_address": 3}) as mesh:
            node = mesh.gateways[0]
            async with (
                MeshClient(f"127.0.0.1:{node.grpc_port}", KEYS["acme"], deadline_s=20.0) as client,
                grpc.aio.insecure_channel(f"127.0.0.1:{node.grpc_port}") as channel,
            ):
                health: Any = health_pb2_grpc.HealthStub(channel)
                for _ in range(4):  # one too many
                    if known:
                        assert (await client.chat(GOOD)).usage.completion_tokens == 3
                    else:
                        await health.Check(health_pb2.HealthCheckRequest())
                    await come_and_go(mesh, node.grpc_port)
                assert is_turned_away(node.grpc_port) == is_turned_away(node.http_port) == (not known)
                await health.Check(health_pb2.HealthCheckRequest())
                await door_of(mesh).sweep()
                await health.Check(health_pb2.HealthCheckRequest(), wait_for_ready=False)

    asyncio.run(main())
