"""Clients that read slowly.

1. What waits for a client is bounded: past the bound its stream is ended as `slow_reader`, and its slot is free.
2. The engine is not left to generate for nobody.
3. A client that pauses and reads on, within the bound, gets every token once, in fewer and larger events.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from pathlib import Path
from typing import Any

import grpc
import pytest

from services.client.grpc_client import pb
from services.config import TlsConfig
from tests.certificates import Authority
from tests.mesh.local_mesh import KEYS, LocalMesh, Response, local_mesh, said

MANY = 300_000
BOUND = 65_536
UNPACED = {"sim_step_s": 0.0, "max_model_len": 400_000, "sim_kv_tokens": 1_000_000}
SLACK_TOKENS = 60_000
"""What the kernel's buffers take of a stream, at some 200 bytes a token, before anything waits in the gateway."""


def tokens_made(mesh: LocalMesh) -> int:
    return sum(rank.engine.sample_load().tokens_total for rank in mesh.ranks)


def written(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


async def ended_for(log: Path, reason: str) -> dict[str, Any]:
    """The line of the request log with this reason, once it is there."""
    async with asyncio.timeout(60):
        while True:
            for line in map(json.loads, written(log)):
                if line.get("error_code") == reason:
                    return line
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "tls"])
def test_one_that_does_not_read_is_ended_by_name(tmp_path: Path, encrypted: bool) -> None:
    log, tls, client_tls = tmp_path / "log", TlsConfig(), None
    if encrypted:
        ca = Authority()
        certificate, key = ca.issue(tmp_path, "server")
        tls = TlsConfig(certificate_file=str(certificate), key_file=str(key), minimum_version="1.2")
        client_tls = ssl.create_default_context(cadata=ca.pem.decode())

    async def main() -> None:
        async with local_mesh(
            tmp_path, limits={"stream_buffer_bytes": BOUND}, experts=UNPACED, request_log=str(log), tls=tls,
            client_tls=client_tls,
        ) as mesh:  # fmt: skip
            body = {"model": "sim", "prompt": "x", "max_tokens": MANY, "stream": True}
            response = await mesh.post("/v1/completions", body, receive_buffer=4096)
            response.writer.transport.pause_reading()
            await ended_for(log, "slow_reader")
            assert tokens_made(mesh) < SLACK_TOKENS
            assert not mesh.gateways[0].mesh.queue._tickets
            async with asyncio.timeout(10):
                while any(rank.engine.sample_load().running for rank in mesh.ranks):
                    await asyncio.sleep(0.01)
            response.hang_up()

    asyncio.run(main())


def test_one_that_does_not_read_grpc_is_ended_by_name(tmp_path: Path) -> None:
    log = tmp_path / "log"

    async def main() -> None:
        async with local_mesh(
            tmp_path, limits={"stream_buffer_bytes": BOUND}, experts=UNPACED, request_log=str(log)
        ) as mesh:
            options = (("grpc.http2.lookahead_bytes", 4096), ("grpc.http2.bdp_probe", 0))
            address = f"127.0.0.1:{mesh.gateways[0].grpc_port}"
            async with grpc.aio.insecure_channel(address, options=options) as channel:
                request = pb.TextRequest(model="sim", sampling=pb.Sampling(max_tokens=MANY))
                request.prompts.add().text = "x"
                stream = channel.unary_stream("/expertmesh.v1.Inference/StreamText")
                call = stream(request.SerializeToString(), metadata=(("x-api-key", KEYS["acme"]),))
                await call.read()  # and no further
                await ended_for(log, "slow_reader")
                assert tokens_made(mesh) < SLACK_TOKENS
                call.cancel()

    asyncio.run(main())


def test_one_that_pauses_and_reads_on_gets_every_token_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with local_mesh(tmp_path, experts=UNPACED) as mesh:
            tokens = 20_000
            body = {"model": "sim", "prompt": "x", "max_tokens": tokens, "stream": True}
            response = await mesh.post("/v1/completions", body, receive_buffer=4096)
            response.writer.transport.pause_reading()
            async with asyncio.timeout(60):
                while not backed_up(mesh):
                    await asyncio.sleep(0.001)
            response.writer.transport.resume_reading()
            events = await taken(response)
            assert "".join(event["choices"][0]["text"] for event in events) == said("x", tokens)
            assert len(events) < tokens

    asyncio.run(main())


def backed_up(mesh: LocalMesh) -> bool:
    return any(c.write_paused for c in mesh.gateways[0]._http.connections)


async def taken(response: Response) -> list[dict[str, Any]]:
    return [event async for event in response.events()]
