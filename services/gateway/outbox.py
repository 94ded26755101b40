"""What clients are sent in one turn of the event loop, written together at its end.

An engine's step is a frame with a token for each of hundreds of streams. Interpreter and TCP stack push one another out
of the processor's caches when they take turns for each token: first all events, then all writes, is a seventh
cheaper (docs/adr/0022-events-of-a-turn-leave-together.md). Nothing waits longer than the turn, and what one client is
sent in a turn leaves in one packet.

Rules: knows sockets and bytes, no HTTP. Order per client is kept as long as all its bytes go through here, or after
`flush`. Nothing is written to a connection that has been closed meanwhile: its descriptor may be another client's.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

Write = Callable[[bytes], None]
"""Sends bytes to one client. Must not raise: others are behind it."""


class Outbox:
    """`waiting` is filled by its users, who call `due` before the first entry."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Write, bytes]] = []

    def due(self) -> None:
        """Something will be waiting."""
        asyncio.get_running_loop().call_soon(self.flush)

    def put(self, write: Write, data: bytes) -> None:
        """`write(data)` at the end of this turn."""
        if not self.waiting:
            self.due()
        self.waiting.append((write, data))

    def flush(self) -> None:
        """Write everything now."""
        batch = self.waiting[:]
        self.waiting.clear()
        last, held = None, b""
        for write, data in batch:
            if write is last:
                held += data
                continue
            if last is not None:
                last(held)
            last, held = write, data
        if last is not None:
            last(held)


def writer(transport: asyncio.Transport) -> Write:
    """`transport.write`, but straight to the socket while nothing is buffered: all that a transport adds to that is
    memory to touch (1 to 2 µs a token). Over TLS it is the transport's own."""
    sock = transport.get_extra_info("socket")
    if sock is None or transport.get_extra_info("sslcontext") is not None:
        return transport.write

    def write(
        data: bytes,
        descriptor: int = sock.fileno(),
        closed: Callable[[], bool] = transport.is_closing,
        num_buffered: Callable[[], int] = transport.get_write_buffer_size,
        later: Write = transport.write,
        send: Callable[[int, bytes], int] = os.write,
    ) -> None:
        if closed():
            return
        if num_buffered():
            later(data)
            return
        try:
            num_sent = send(descriptor, data)
        except OSError:  # full, or gone: the transport finds out which, and what follows from it
            num_sent = 0
        if num_sent < len(data):
            later(data[num_sent:])

    return write
