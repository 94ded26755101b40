"""What clients are sent in one turn.

1. Each client gets its bytes in order and whole, however little its socket takes at a time; in one write per turn.
2. Nothing is written to a connection that is lost: its descriptor may be another client's.
3. Over TLS, and while anything waits in the transport, the transport writes.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine
from typing import Any, cast

import pytest
import uvloop

from services.gateway.outbox import GONE, NOWHERE, Outbox, Outlet


class Transport:
    """Notes what is written."""

    def __init__(self, *, closing: bool = False, encrypted: bool = False) -> None:
        self.written: list[bytes] = []
        self._closing, self._encrypted = closing, encrypted

    def is_closing(self) -> bool:
        return self._closing

    def get_extra_info(self, name: str) -> object:
        return object() if self._encrypted and name == "sslcontext" else None

    def write(self, data: bytes) -> None:
        self.written.append(data)


def outlet(transport: Transport) -> Outlet:
    return Outlet(cast(asyncio.Transport, transport))


class Client(asyncio.Protocol):
    """A connection as httptools_connection.py keeps one."""

    outlet = GONE

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        transport.set_write_buffer_limits(high=0)
        self.outlet = Outlet(transport)

    def pause_writing(self) -> None:
        self.outlet.backed_up()

    def resume_writing(self) -> None:
        self.outlet.writable()

    def connection_lost(self, exc: Exception | None) -> None:
        self.outlet.close()


async def client(sock: socket.socket) -> Client:
    return (await asyncio.get_running_loop().create_connection(Client, sock=sock))[1]


def test_one_write_per_client_and_turn_in_order() -> None:
    async def main() -> None:
        box, one, two = Outbox(), Transport(), Transport()
        first, second = outlet(one), outlet(two)
        for to, data in ((first, b"a"), (first, b"b"), (second, b"c"), (first, b"d")):
            box.put(to, data)
        assert one.written == two.written == []
        await asyncio.sleep(0)
        assert one.written == [b"ab", b"d"] and two.written == [b"c"]
        box.flush()
        assert one.written == [b"ab", b"d"]

    asyncio.run(main())


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_more_than_the_socket_takes(run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    """(1) The rest waits in the transport, and what comes after it waits behind it."""

    async def main() -> None:
        ours, theirs = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        reader, their_writer = await asyncio.open_connection(sock=theirs)
        one, box = await client(ours), Outbox()
        assert one.outlet.descriptor == ours.fileno()
        pieces = [os.urandom(50_000) for _ in range(8)]
        for piece in pieces:
            box.put(one.outlet, piece)
            box.flush()
        assert one.outlet.descriptor == NOWHERE and one.transport.get_write_buffer_size() > 0
        assert await reader.readexactly(400_000) == b"".join(pieces)
        while one.outlet.descriptor == NOWHERE:
            await asyncio.sleep(0)
        box.put(one.outlet, b"behind")
        assert await reader.readexactly(6) == b"behind"
        one.transport.close()
        their_writer.close()

    run(main())


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_lost_connection_gets_nothing(run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    """(2) As long as its descriptor may be written to, it is its own."""

    async def main() -> None:
        ours, theirs = socket.socketpair()
        number = ours.fileno()
        one = await client(ours)
        one.transport.abort()
        while one.outlet.descriptor != NOWHERE:
            os.fstat(number)
            await asyncio.sleep(0)
        mine, peer = socket.socketpair()
        box = Outbox()
        box.put(one.outlet, b"somebody else's")
        box.flush()
        for sock in (mine, peer):
            sock.setblocking(False)
            with pytest.raises(BlockingIOError):
                sock.recv(100)
        for each in (theirs, mine, peer):
            each.close()

    run(main())


def test_over_tls_the_transport_writes_as_long_as_it_is_open() -> None:
    open_one, closing = Transport(encrypted=True), Transport(encrypted=True, closing=True)
    for transport in (open_one, closing):
        to = outlet(transport)
        to.writable()
        assert to.descriptor == NOWHERE
        to.write_later(b"x")
    assert open_one.written == [b"x"] and not closing.written
