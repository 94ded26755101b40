"""Requests in, answers out, and clients are bounded. Real sockets on loopback, no sleeping."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from load_tests.bench.hostile_clients import SMUGGLED
from services.config import LimitsConfig
from services.errors import ConfigError
from services.gateway import httptools_reader, httptools_server
from services.gateway.httptools_exchange import Exchange
from services.gateway.httptools_server import HttpServer
from services.gateway.sockets import bind

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class App:
    """Answers /stream with three events, everything else with its body's length; remembers who left."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()
        self.hold = asyncio.Event()

    async def __call__(self, wire: Exchange) -> None:
        if wire.path == b"/refuse":
            wire.respond(413, b"content-type: text/plain\r\n", b"too large")
            return
        body = await wire.body(1_000_000)
        assert body is not None
        if wire.path == b"/stream":
            wire.start_stream(b"x-request-id: a\r\n")
            for number in range(3):
                wire.write_chunk(b"data: %d\n\n" % number)
            wire.end_stream(b"data: [DONE]\n\n")
        elif wire.path == b"/last-words":
            wire.start_stream(b"")
            wire.watch(on_close=lambda: wire.write_chunk(b"data: counted\n\n"))
            await self.hold.wait()
        elif wire.path == b"/hang":
            wire.watch(on_close=self.gone.set)
            await self.hold.wait()
        else:
            wire.respond(200, b"content-type: text/plain\r\n", b"%d" % len(body))


def run(exchange: Talk, limits: LimitsConfig | None = None, app_out: list[App] | None = None) -> None:
    async def main() -> None:
        app = App()
        if app_out is not None:
            app_out.append(app)
        server = HttpServer(app, limits or LimitsConfig())
        port = await server.start("127.0.0.1", 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            async with asyncio.timeout(10):
                await exchange(reader, writer)
        finally:
            writer.close()
            app.hold.set()
            await server.stop(0.1)

    asyncio.run(main())


async def answer(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Head and body of one response with a content length."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"content-length")
    )
    return head, await reader.readexactly(length)


def test_keep_alive_and_pipelining_survive_our_writes() -> None:
    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        post = b"POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc"
        writer.write(post + b"GET /stream HTTP/1.1\r\nhost: x\r\n\r\n" + post)
        assert (await answer(reader))[1] == b"3"
        streamed = await reader.readuntil(b"0\r\n\r\n")
        assert b"transfer-encoding: chunked" in streamed
        assert streamed.count(b"data: ") == 4
        assert (await answer(reader))[1] == b"3"

    run(exchange)


def test_head_has_no_body_and_close_is_honoured() -> None:
    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HEAD /a HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        everything = await reader.read()
        assert b"content-length: 1" in everything and everything.endswith(b"\r\n\r\n")

    run(exchange)


def test_a_large_body_arrives_whole() -> None:
    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 900000\r\n\r\n" + bytes(900_000))
        assert (await answer(reader))[1] == b"900000"

    run(exchange)


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET / HTTP/1.1\r\nhost: x\r\na: " + b"b" * 40_000 + b"\r\n\r\n", b"431"),
        (b"GET / HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * 200 + b"\r\n", b"431"),
        (b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n", b"414"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"400"),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\nabc", b"400"),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabc", b"400"),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: -3\r\n\r\nabc", b"400"),
    ],
    ids=[
        "large header",
        "many headers",
        "long target",
        "tls",
        "smuggled te",
        "smuggled cl",
        "negative length",
    ],
)
def test_what_is_no_decent_request_is_refused_and_closed(request_bytes: bytes, status: bytes) -> None:
    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(request_bytes)
        everything = await reader.read()
        assert everything.startswith(b"HTTP/1.1 " + status), everything[:80]
        assert b'"error"' in everything

    run(exchange)


@pytest.mark.parametrize("rest", SMUGGLED, ids=lambda rest: repr(rest)[2:40])
def test_a_request_with_two_readings_is_refused_and_nothing_behind_it_read(rest: bytes) -> None:
    """RFC 9112 §6.1, §6.3, §11.2: what a proxy before us could read otherwise."""

    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"POST /a HTTP/1.1\r\nhost: h\r\n" + rest + b"GET /a HTTP/1.1\r\nhost: h\r\n\r\n")
        told = await reader.read()
        assert told.startswith(b"HTTP/1.1 400") and told.count(b"HTTP/1.1 ") == 1, told

    run(exchange)


@pytest.mark.parametrize(
    ("method", "begun"),
    [(b"GET", b"x: "), (b"GET", b""), (b"POST", b"1;"), (b"POST", b"0\r\nx: ")],
    ids=["value", "name", "chunk extension", "trailer"],
)
def test_what_has_no_end_is_not_kept(method: bytes, begun: bytes) -> None:
    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(method + b" / HTTP/1.1\r\n")
        if method == b"POST":
            writer.write(b"transfer-encoding: chunked\r\nexpect: 100-continue\r\n\r\n")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
        writer.write(begun + b"a" * (33 * 1024))
        head, _ = await answer(reader)
        assert head.startswith(b"HTTP/1.1 431 ") and await reader.read() == b""

    run(exchange)


def test_who_waits_for_a_hundred_gets_it_before_sending_its_body() -> None:
    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"POST /a HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"abc")
        assert (await answer(reader))[1] == b"3"

    run(exchange)


def test_an_upgrade_is_answered_as_it_is_and_nothing_behind_it_read() -> None:
    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"GET /a HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
        writer.write(b"GET /a HTTP/1.1\r\nhost: x\r\n\r\n")
        told = await reader.read()
        assert told.startswith(b"HTTP/1.1 200") and told.count(b"HTTP/1.1 ") == 1, told

    run(exchange)


def test_trailers_are_no_headers() -> None:
    """RFC 9110 §6.5.1: a proxy before us may have looked at the headers alone."""
    seen: list[dict[bytes, bytes]] = []

    async def app(wire: Exchange) -> None:
        assert await wire.body(100) == b"abc"
        seen.append(wire.headers)
        wire.respond(200, b"", b"")

    async def main() -> None:
        server = HttpServer(app, LimitsConfig())
        port = await server.start("127.0.0.1", 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = b"POST /a HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
        writer.write(head + b"3\r\nabc\r\n0\r\nauthorization: Bearer other\r\n\r\n")
        async with asyncio.timeout(10):
            await reader.read()
        writer.close()
        await server.stop(0.1)

    asyncio.run(main())
    assert set(seen[0]) == {b"host", b"transfer-encoding", b"connection"}


def test_a_slow_sender_is_cut_by_the_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(httptools_server, "SWEEP_EVERY_S", 0.01)

    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"POST /a HTTP/1.1\r\nhost")
        assert (await reader.read()).startswith(b"HTTP/1.1 408")

    run(exchange, LimitsConfig(header_timeout_s=0.02))


def test_a_client_that_leaves_is_noticed_at_once() -> None:
    apps: list[App] = []

    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"GET /hang HTTP/1.1\r\nhost: x\r\n\r\n")
        await writer.drain()
        writer.transport.abort()
        await apps[0].gone.wait()
        assert apps[0].gone.is_set()

    run(exchange, app_out=apps)


def test_what_is_counted_until_a_client_is_given_up_is_sent() -> None:
    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"GET /last-words HTTP/1.1\r\nhost: x\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        writer.write_eof()
        assert b"data: counted" in await reader.read()

    run(exchange)


@pytest.mark.parametrize("limits", [{"max_connections": 2}, {"max_connections_per_address": 2}])
def test_connections_are_bounded(limits: dict[str, int]) -> None:
    """Our own is one of the two; what closes makes room."""

    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = writer.get_extra_info("peername")[1]
        ask = b"GET /a HTTP/1.1\r\nhost: x\r\n\r\n"
        for _ in range(3):
            second = await asyncio.open_connection("127.0.0.1", port)
            second[1].write(ask)
            assert (await answer(second[0]))[0].startswith(b"HTTP/1.1 200")
            third = await asyncio.open_connection("127.0.0.1", port)
            refusal = await third[0].read()
            assert refusal.startswith((b"HTTP/1.1 503", b"HTTP/1.1 429")), refusal
            assert b"too many connections" in refusal
            third[1].close()
            second[1].write(b"GET /a HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            await second[0].read()
            second[1].close()
        writer.write(ask)
        assert (await answer(reader))[0].startswith(b"HTTP/1.1 200")

    run(exchange, LimitsConfig(**limits))


def test_an_idle_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(httptools_server, "SWEEP_EVERY_S", 0.01)

    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"GET /a HTTP/1.1\r\nhost: x\r\n\r\n")
        await answer(reader)
        assert await reader.read() == b""

    run(exchange, LimitsConfig.model_construct(**{**LimitsConfig().model_dump(), "idle_timeout_s": 0.02}))


def test_answers_that_nobody_takes_are_not_made() -> None:
    """A client asks ahead for a hundred large answers and reads none: two or three wait for it, not a hundred."""
    made: list[int] = []
    large = b"x" * 400_000

    async def app(wire: Exchange) -> None:
        made.append(1)
        wire.respond(200, b"content-type: text/plain\r\n", large)

    async def main() -> None:
        server = HttpServer(app, LimitsConfig())
        port = await server.start("127.0.0.1", 0)
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        reader, writer = await asyncio.open_connection(sock=sock)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(b"GET /a HTTP/1.1\r\nhost: x\r\n\r\n" * 100)
        async with asyncio.timeout(10):
            while not made:
                await asyncio.sleep(0)
            for _ in range(1000):  # as many rounds of the loop as a hundred answers would need
                await asyncio.sleep(0)
            assert len(made) < 30  # the kernel takes some megabytes on loopback
            before = len(made)
            writer.transport.resume_reading()  # type: ignore[attr-defined]
            for _ in range(100):
                assert len((await answer(reader))[1]) == len(large)
        assert before < len(made) == 100
        writer.close()
        await server.stop(0.1)

    asyncio.run(main())


def test_requests_ahead_of_their_answers_are_bounded() -> None:
    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"GET /a HTTP/1.1\r\nhost: x\r\n\r\n" * 1000)
        assert b"too many requests ahead of their answers" in await reader.read()

    run(exchange)


def test_a_taken_port_is_one_clear_error() -> None:
    taken = bind("127.0.0.1", 0)
    with pytest.raises(ConfigError, match="EXPERTMESH_HTTP_PORT"):
        bind("127.0.0.1", taken.getsockname()[1])
    taken.close()


def test_a_refused_body_does_not_cost_the_client_its_answer() -> None:
    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = b"POST /refuse HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 900000\r\n\r\n"
        writer.write(head + bytes(100_000))
        writer.write(bytes(800_000))
        await writer.drain()
        assert (await answer(reader))[1] == b"too large"

    run(exchange)


def test_one_that_never_takes_its_answer_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connection, and what is buffered for it, would otherwise stay for as long as its host answers probes."""
    monkeypatch.setattr(httptools_server, "SWEEP_EVERY_S", 0.01)

    async def app(wire: Exchange) -> None:
        wire.respond(200, b"", b"x" * 20_000_000)

    async def main(connection: bytes) -> None:
        server = HttpServer(app, LimitsConfig(body_timeout_s=0.05))
        port = await server.start("127.0.0.1", 0)
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(b"GET /a HTTP/1.1\r\nhost: x\r\n" + connection + b"\r\n")
        async with asyncio.timeout(10):
            while not server.connections:
                await asyncio.sleep(0.01)
            while server.connections:
                await asyncio.sleep(0.01)
        writer.close()
        await server.stop(0.1)

    asyncio.run(main(b""))
    asyncio.run(main(b"connection: close\r\n"))


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize("taken", [False, True])
def test_who_connected_before_the_end_is_answered(
    taken: bool, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """Its request comes while the server ends already: a reset would be a failed request, since a client cannot know
    that nobody read it. `taken`: out of the kernel's queue, before the end began."""

    async def main() -> None:
        server = HttpServer(App(), LimitsConfig())
        port = await server.start("127.0.0.1", 0)
        idle, idle_writer = await asyncio.open_connection("127.0.0.1", port)
        idle_writer.write(b"GET /a HTTP/1.1\r\nhost: x\r\n\r\n")
        await answer(idle)
        client = socket.create_connection(("127.0.0.1", port))
        client.setblocking(False)
        while taken and len(server.connections) < 2:
            await asyncio.sleep(0)
        ending = asyncio.create_task(server.stop(10.0))
        reader, writer = await asyncio.open_connection(sock=client)
        assert await idle.read() == b""
        writer.write(b"GET /a HTTP/1.1\r\nho")
        await writer.drain()
        await asyncio.sleep(0)
        writer.write(b"st: x\r\n\r\n")
        answered = await reader.read()
        assert answered.startswith(b"HTTP/1.1 200") and b"connection: close" in answered
        await ending
        assert not server.connections
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", port)
        for one in (writer, idle_writer):
            one.close()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(asyncio.wait_for(main(), 10))


def test_who_connected_and_asks_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(httptools_server, "SWEEP_EVERY_S", 0.0)
    monkeypatch.setattr(httptools_reader, "LAST_CALL_S", 0.0)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.read(12) == b"HTTP/1.1 408"

    async def main() -> None:
        server = HttpServer(App(), LimitsConfig())
        reader, writer = await asyncio.open_connection("127.0.0.1", await server.start("127.0.0.1", 0))
        await asyncio.gather(server.stop(3600.0), silent(reader, writer))
        writer.close()

    asyncio.run(asyncio.wait_for(main(), 10))
