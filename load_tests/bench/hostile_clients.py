"""Clients that mean no good: each kind holds on, or comes back, as long as it can. One process, next to no CPU.

    python -m load_tests.bench.hostile_clients --http PORT --grpc PORT --clients 1000 --seconds 10

Each client does one thing over and over: connect, misbehave, wait to be cut, wait `--every` seconds, again. Prints one
JSON object: per kind how often it was cut, what it was told (first line), how long it could hang on.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ipaddress
import json
import random
import struct
import time
from collections import Counter
from collections.abc import Awaitable, Callable

import uvloop

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, CONTINUATION = 0, 1, 3, 4, 6, 9
END_HEADERS = 4
POST = b"POST /v1/completions HTTP/1.1\r\nhost: h\r\n"
JSON = b"content-type: application/json\r\n"

Peer = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Client = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One HTTP/2 frame (RFC 9113 §4.1)."""
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def literal(name: bytes, value: bytes) -> bytes:
    """A header field, not indexed, not compressed (RFC 7541 §6.2.2); both shorter than 127 bytes."""
    return b"\x00" + bytes((len(name),)) + name + bytes((len(value),)) + value


def call_headers(path: bytes = b"/expertmesh.v1.Inference/StreamChat") -> bytes:
    """The header block of a call, without a key."""
    fields = (
        (b":method", b"POST"), (b":scheme", b"http"), (b":path", path), (b":authority", b"h"),
        (b"content-type", b"application/grpc"), (b"te", b"trailers"),
    )  # fmt: skip
    return b"".join(literal(*field) for field in fields)


async def send(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()


async def half_open(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Connects and says nothing."""


async def slow_headers(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Slowloris: a header a second, never the last one."""
    await send(writer, b"GET / HTTP/1.1\r\nhost: h\r\n")
    while not writer.is_closing():
        await asyncio.sleep(1.0)
        await send(writer, b"x: y\r\n")


async def slow_body(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A body that comes a byte a second."""
    await send(writer, POST + JSON + b"content-length: 1000\r\n\r\n{")
    while not writer.is_closing():
        await asyncio.sleep(1.0)
        await send(writer, b" ")


async def endless_body(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Chunks without end, 16 KB a tenth of a second."""
    await send(writer, POST + JSON + b"transfer-encoding: chunked\r\n\r\n")
    chunk = b"4000\r\n" + b" " * 0x4000 + b"\r\n"
    while not writer.is_closing():
        await send(writer, chunk)
        await asyncio.sleep(0.1)


async def header_flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Headers as fast as they are taken."""
    await send(writer, b"GET / HTTP/1.1\r\nhost: h\r\n")
    while not writer.is_closing():
        await send(writer, b"x-flood: " + b"f" * 500 + b"\r\n")


SMUGGLED = (
    b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /x HTTP/1.1\r\n\r\n",
    b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
    b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
    b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    b"transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    b"transfer-encoding : chunked\r\n\r\n0\r\n\r\n",
    b"transfer-encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    b"transfer-encoding: chunked\r\n\r\n-1\r\n\r\n",
    b"transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n\r\n",
    b"content-length: +5\r\n\r\nhello",
    b"content-length: 5\r\n x: folded\r\n\r\nhello",
)


async def smuggler(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Two readings of one request."""
    await send(writer, POST + random.choice(SMUGGLED))


async def garbage_after_body(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A whole request, then bytes that are none."""
    await send(writer, POST + JSON + b"content-length: 2\r\n\r\n{}" + bytes(range(256)) * 4)


async def invalid_utf8(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A body, and a path, that are no text."""
    body = b'{"prompt": "\xff\xfe\xc0\x80"}'
    await send(writer, POST + JSON + b"content-length: %d\r\n\r\n" % len(body) + body)


async def never_reads(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Asks for the largest public page again and again, and takes none of the answers."""
    writer.transport.pause_reading()  # type: ignore[attr-defined]  # a read-write transport
    while not writer.is_closing():
        await send(writer, b"GET /openapi.json HTTP/1.1\r\nhost: h\r\n\r\n" * 50)
        await asyncio.sleep(1.0)


async def rapid_reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """CVE-2023-44487: calls opened and reset at once, 200 every tenth of a second."""
    await send(writer, PREFACE + frame(SETTINGS, 0, 0))
    headers, number = call_headers(), 0
    while not writer.is_closing():
        burst = b""
        for _number in range(20):
            stream, number = 2 * number + 1, number + 1
            burst += frame(HEADERS, END_HEADERS, stream, headers)
            burst += frame(RST_STREAM, 0, stream, struct.pack(">I", 8))
        await send(writer, burst)
        await asyncio.sleep(0.1)


async def large_metadata(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Metadata far over the limit, in one call after the other."""
    await send(writer, PREFACE + frame(SETTINGS, 0, 0))
    flood, stream = b"".join(literal(b"x-%03d" % i, b"v" * 100) for i in range(140)), 1
    while not writer.is_closing():
        await send(
            writer,
            frame(HEADERS, 0, stream, call_headers()) + frame(CONTINUATION, END_HEADERS, stream, flood),
        )
        stream += 2
        await asyncio.sleep(1.0)


async def ping_flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """CVE-2019-9512: each ping asks for an answer."""
    await send(writer, PREFACE + frame(SETTINGS, 0, 0))
    while not writer.is_closing():
        await send(writer, frame(PING, 0, 0, b"12345678") * 50)
        await asyncio.sleep(0.1)


async def half_hello(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """HTTP/2 that never gets through its preface."""
    await send(writer, PREFACE[:10])


async def half_call(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A call whose message never comes."""
    await send(
        writer,
        PREFACE
        + frame(SETTINGS, 0, 0)
        + frame(HEADERS, END_HEADERS, 1, call_headers())
        + frame(DATA, 0, 1, b"\0\0"),
    )


ON_HTTP: tuple[Client, ...] = (
    half_open, slow_headers, slow_body, endless_body, header_flood, smuggler, garbage_after_body, invalid_utf8,
    never_reads,
)  # fmt: skip
ON_GRPC: tuple[Client, ...] = (rapid_reset, large_metadata, ping_flood, half_hello, half_call)


class Book:
    """What became of the clients of one kind."""

    def __init__(self) -> None:
        self.connected = self.cut = self.refused = 0
        self.longest_s = 0.0
        self.told: Counter[str] = Counter()


async def hang_on(kind: Client, port: int, host: str, every_s: float, book: Book) -> None:
    """One client, for ever."""
    while True:
        try:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, local_addr=(host, 0) if host else None
            )
        except OSError:
            book.refused += 1
            await asyncio.sleep(every_s)
            continue
        book.connected += 1
        began_s = time.monotonic()
        act = asyncio.ensure_future(kind(reader, writer))
        try:
            first = b""
            if kind is never_reads:
                with contextlib.suppress(OSError):
                    await act
            else:
                with contextlib.suppress(OSError):
                    first = await reader.read(4096)
                    while await reader.read(65_536):
                        pass
            book.cut += 1
            book.longest_s = max(book.longest_s, time.monotonic() - began_s)
            book.told[
                first[:12].decode("latin-1") if first.startswith(b"HTTP/") else ("h2" if first else "")
            ] += 1
        finally:
            act.cancel()
            writer.transport.abort()
            await asyncio.wait(
                [act]
            )  # does not raise what it ended with, and lets our own cancellation through
            _ = act.cancelled() or act.exception()
        await asyncio.sleep(every_s)


async def run(args: argparse.Namespace) -> None:
    kinds = [*((kind, args.http) for kind in ON_HTTP), *((kind, args.grpc) for kind in ON_GRPC)]
    kinds = [(kind, port) for kind, port in kinds if args.only in ("", kind.__name__)]
    books = {kind.__name__: Book() for kind, _ in kinds}
    tasks: list[asyncio.Future[None]] = []
    for number in range(args.clients):
        kind, port = kinds[number % len(kinds)]
        source = args.source and str(
            ipaddress.ip_address(args.source) + number * args.sources // args.clients
        )
        tasks.append(asyncio.ensure_future(hang_on(kind, port, source, args.every, books[kind.__name__])))
        if number % 50 == 49:
            await asyncio.sleep(0.05)
    print("up", flush=True)
    await asyncio.sleep(args.seconds)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    print(
        json.dumps(
            {
                name: {
                    "connected": book.connected,
                    "cut": book.cut,
                    "refused": book.refused,
                    "longest_s": round(book.longest_s, 1),
                    "told": dict(book.told.most_common(4)),
                }
                for name, book in books.items()
            }
        )
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--http", type=int, required=True)
    parser.add_argument("--grpc", type=int, required=True)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--every", type=float, default=1.0)
    parser.add_argument("--source", default="")
    parser.add_argument(
        "--sources", type=int, default=1, help="addresses from --source on, each with all kinds"
    )
    parser.add_argument("--only", default="", help="one kind of client")
    uvloop.run(run(parser.parse_args()))
