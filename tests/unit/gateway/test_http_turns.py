"""What leaves when.

1. What a stream says in a turn of the event loop is in the client's socket before that turn's successors run: nothing
   waits for a timer, for more to say, or for the loop to look at sockets again.
2. Nothing is held back by Nagle's algorithm, whoever makes the listening socket.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from services.config import LimitsConfig
from services.gateway.httptools_exchange import Exchange
from services.gateway.httptools_server import HttpServer


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_token_leaves_with_its_turn(run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        begun: asyncio.Future[Exchange] = loop.create_future()

        async def app(exchange: Exchange) -> None:
            exchange.start_stream(b"")
            begun.set_result(exchange)
            await loop.create_future()

        server = HttpServer(app, LimitsConfig())
        port = await server.start("127.0.0.1", 0)
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
            exchange = await begun
            await asyncio.sleep(0)
            client.setblocking(False)
            assert client.recv(10_000).endswith(b"chunked\r\n\r\n")
            (connection,) = server.connections
            accepted = connection.transport.get_extra_info("socket")
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            for _ in range(3):
                seen: asyncio.Future[bytes] = loop.create_future()

                def say(seen: asyncio.Future[bytes] = seen) -> None:
                    exchange.write_chunk(b"token")
                    loop.call_soon(
                        lambda: seen.set_result(client.recv(100))
                    )  # behind the flush, before any poll

                loop.call_soon(say)
                assert await seen == b"5\r\ntoken\r\n"
        await server.stop(0.0)

    run(main())
