"""Hostile clients on the gRPC port: whatever they send, nobody else notices, the engine sees none of it, and
what deserves an answer gets one by name, never INTERNAL and never silence."""

from __future__ import annotations

import asyncio
import os
import struct
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from load_tests.fuzz.grpc_fuzz import fuzz
from services.client.grpc_client import MeshClient, pb, user
from tests.mesh.local_mesh import KEYS, LocalMesh, local_mesh

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, CONTINUATION = 0, 1, 3, 4, 6, 7, 9
END_HEADERS = 4
GOOD = pb.ChatRequest(
    model="sim", messages=[user("Hello")], sampling=pb.Sampling(max_tokens=3, temperature=1.0)
)
FUZZED = int(os.environ.get("EXPERTMESH_FUZZ_INPUTS", "600"))

Body = Callable[[LocalMesh, MeshClient, int], Awaitable[None]]


def on_a_mesh(tmp_path: Path, body: Body) -> None:
    async def main() -> None:
        async with local_mesh(tmp_path, engines=1) as mesh:
            port = mesh.gateways[0].grpc_port
            async with MeshClient(f"127.0.0.1:{port}", KEYS["acme"], deadline_s=20.0) as client:
                await body(mesh, client, port)
                answer = await client.chat(GOOD)
                assert answer.usage.completion_tokens == 3

    asyncio.run(main())


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One HTTP/2 frame (RFC 9113 §4.1)."""
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def literal(name: bytes, value: bytes) -> bytes:
    """A header field, not indexed, not compressed (RFC 7541 §6.2.2); both shorter than 127 bytes."""
    return b"\x00" + bytes((len(name),)) + name + bytes((len(value),)) + value


def call_headers(**extra: bytes) -> bytes:
    """The header block of a StreamChat call."""
    fields = {
        b":method": b"POST", b":scheme": b"http", b":path": b"/expertmesh.v1.Inference/StreamChat",
        b":authority": b"test", b"content-type": b"application/grpc", b"te": b"trailers",
        b"x-api-key": KEYS["acme"].encode(),
    }  # fmt: skip
    fields |= {name.encode(): value for name, value in extra.items()}
    return b"".join(literal(name, value) for name, value in fields.items())


async def connection(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection that has said hello."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(PREFACE + frame(SETTINGS, 0, 0))
    return reader, writer


async def pushed(writer: asyncio.StreamWriter, data: bytes) -> bool:
    """Send; False when the server has cut the connection."""
    try:
        writer.write(data)
        await writer.drain()
    except ConnectionError:
        return False
    return True


async def hung_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take the other side's last words and close."""
    writer.close()
    try:
        async with asyncio.timeout(5):
            while await reader.read(65_536):
                pass
    except (ConnectionError, TimeoutError):
        pass


def test_rapid_reset(tmp_path: Path) -> None:
    """CVE-2023-44487: calls that are opened and reset at once, thousands on one connection."""

    async def body(mesh: LocalMesh, client: MeshClient, port: int) -> None:
        message = GOOD.SerializeToString()
        request = frame(DATA, 1, 0, b"\x00" + struct.pack(">I", len(message)) + message)
        reader, writer = await connection(port)
        headers = call_headers()
        for number in range(3000):
            stream = 2 * number + 1
            data = request[:5] + struct.pack(">I", stream) + request[9:]
            reset = frame(RST_STREAM, 0, stream, struct.pack(">I", 8))
            if not await pushed(writer, frame(HEADERS, END_HEADERS, stream, headers) + data + reset):
                break
            if number % 500 == 0:
                assert (await client.chat(GOOD)).usage.completion_tokens == 3
        await hung_up(reader, writer)
        await idle(mesh)

    on_a_mesh(tmp_path, body)


async def idle(mesh: LocalMesh) -> None:
    """Every slot is free again."""
    async with asyncio.timeout(10):
        while any(rank.engine.sample_load().running for rank in mesh.ranks):  # it tells nobody
            await asyncio.sleep(0.01)


def test_headers_without_end(tmp_path: Path) -> None:
    """CVE-2024-27316: CONTINUATION frames without end. grpc reads on and forgets what is over its limit, so
    the sender pays for every byte; the call itself is refused, and others are served meanwhile."""

    async def body(mesh: LocalMesh, client: MeshClient, port: int) -> None:
        reader, writer = await connection(port)
        flood = b"".join(literal(b"x-%03d" % i, b"v" * 100) for i in range(100))
        assert await pushed(writer, frame(HEADERS, 0, 1, call_headers()))
        for number in range(400):
            if not await pushed(writer, frame(CONTINUATION, 0, 1, flood)):
                break
            if number % 100 == 0:
                await client.chat(GOOD)
        await pushed(writer, frame(CONTINUATION, END_HEADERS, 1))
        await hung_up(reader, writer)
        await idle(mesh)

    on_a_mesh(tmp_path, body)


@pytest.mark.parametrize("kind", [PING, SETTINGS])
def test_control_floods(tmp_path: Path, kind: int) -> None:
    """CVE-2019-9512, -9515: each asks for an answer; the server may answer or hang up, not fall behind."""

    async def body(mesh: LocalMesh, client: MeshClient, port: int) -> None:
        reader, writer = await connection(port)
        payload = b"12345678" if kind == PING else b""
        for number in range(200):
            if not await pushed(writer, frame(kind, 0, 0, payload) * 50):
                break
            if number % 50 == 0:
                await client.chat(GOOD)
        await hung_up(reader, writer)

    on_a_mesh(tmp_path, body)


def test_clients_that_hang_on(tmp_path: Path) -> None:
    """Half a hello, half a frame, a call whose message never comes, and one that says HTTP/1.1."""
    beginnings = (
        PREFACE[:10],
        PREFACE + frame(SETTINGS, 0, 0)[:7],
        PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, END_HEADERS, 1, call_headers()),
        PREFACE
        + frame(SETTINGS, 0, 0)
        + frame(HEADERS, END_HEADERS, 1, call_headers())
        + frame(DATA, 0, 1, b"\x00\x00"),
        b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 100,
        b"",
    )

    async def body(mesh: LocalMesh, client: MeshClient, port: int) -> None:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(30) for _ in beginnings]
        for i, (_, writer) in enumerate(held):
            await pushed(writer, beginnings[i % len(beginnings)])
        answers = await asyncio.gather(*(client.chat(GOOD) for _ in range(50)))
        assert {answer.usage.completion_tokens for answer in answers} == {3}
        for _, writer in held:
            writer.transport.abort()
        await idle(mesh)

    on_a_mesh(tmp_path, body)


@pytest.mark.parametrize("seed", range(-(-FUZZED // 600)))
def test_fuzzed_messages(tmp_path: Path, seed: int) -> None:
    """EXPERTMESH_FUZZ_INPUTS seeded calls of every method, 600 to a mesh: an answer or a refusal by name, never
    INTERNAL or UNKNOWN, never silence. `make fuzz` is the long form."""

    async def body(mesh: LocalMesh, client: MeshClient, port: int) -> None:
        found = await fuzz(f"127.0.0.1:{port}", KEYS["acme"], calls=600, seed=seed, hang_s=20.0)
        assert not found.wrong
        ends = Counter[str]()
        for name, number in found.codes.items():
            ends[name.split()[1]] += number
        assert ends["OK"] > 100, ends
        assert ends["INVALID_ARGUMENT"] > 120, ends
        await idle(mesh)

    on_a_mesh(tmp_path, body)
