"""What clients are sent in one turn.

1. Each client gets its bytes in order and whole, however little its socket takes at a time; in one write per turn.
2. Nothing is written to a connection that was closed before the turn ended.
"""

from __future__ import annotations

import asyncio
import os
import socket
from typing import cast

from services.gateway.outbox import Outbox, writer


def test_one_write_per_client_and_turn_in_order() -> None:
    async def main() -> None:
        box, one, two = Outbox(), list[bytes](), list[bytes]()
        first, second = one.append, two.append
        for write, data in ((first, b"a"), (first, b"b"), (second, b"c"), (first, b"d")):
            box.put(write, data)
        assert one == two == []
        await asyncio.sleep(0)
        assert one == [b"ab", b"d"] and two == [b"c"]
        box.flush()
        assert one == [b"ab", b"d"]

    asyncio.run(main())


def test_more_than_the_socket_takes() -> None:
    """(1) The rest waits in the transport, and what comes after it waits behind it."""

    async def main() -> None:
        ours, theirs = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        reader, their_writer = await asyncio.open_connection(sock=theirs)
        transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=ours)
        write = writer(transport)
        pieces = [os.urandom(50_000) for _ in range(8)]
        for piece in pieces:
            write(piece)
        assert transport.get_write_buffer_size() > 0
        assert await reader.readexactly(400_000) == b"".join(pieces)
        write(b"behind")
        assert await reader.readexactly(6) == b"behind"
        transport.close()
        their_writer.close()

    asyncio.run(main())


def test_a_closed_connection_gets_nothing() -> None:
    """(2) Its descriptor belongs to the next client already."""

    async def main() -> None:
        ours, theirs = socket.socketpair()
        transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=ours)
        write, number = writer(transport), ours.fileno()
        transport.abort()
        await asyncio.sleep(0.0)
        await asyncio.sleep(0.0)
        mine, peer = socket.socketpair()
        if mine.fileno() != number:
            os.dup2(mine.fileno(), number)
        write(b"somebody else's")
        peer.setblocking(False)
        assert _read(peer) is None
        for one in (theirs, mine, peer):
            one.close()

    asyncio.run(main())


def _read(sock: socket.socket) -> bytes | None:
    try:
        return sock.recv(100)
    except BlockingIOError:
        return None


def test_over_tls_it_is_the_transports_own() -> None:
    class Tls:
        def get_extra_info(self, name: str) -> object:
            return object()

        def write(self, data: bytes) -> None: ...

    tls = cast(asyncio.Transport, Tls())
    assert writer(tls) == tls.write
