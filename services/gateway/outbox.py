"""What clients are sent in one turn of the event loop, written together at its end.

An engine's step is a frame with a token for each of hundreds of streams. Interpreter and TCP stack push one another out
of the processor's caches when they take turns for each token: first all events, then all writes, is a seventh
cheaper (docs/adr/0022-events-of-a-turn-leave-together.md). Nothing waits longer than the turn, and what one client is
sent in a turn leaves in one packet.

Rules: knows sockets and bytes, no HTTP. Order per client is kept as long as all its bytes go through here, or after
`flush`. Nothing is asked per write: a connection says when its state changes. Its transport must pause it as soon as
anything is buffered (a high water of 0), or later bytes could pass earlier ones.
"""

from __future__ import annotations

import asyncio
import os

NOWHERE = -1


class Outlet:
    """One client's socket. Bytes go straight to `descriptor`; while that is NOWHERE, as earlier ones still wait, or
    over TLS, through the transport. All that a transport adds to a write is memory to touch (1 to 2 µs a token)."""

    __slots__ = ("_own", "_transport", "descriptor")

    def __init__(self, transport: asyncio.Transport | None, *, backed_up: bool = False) -> None:
        self._transport, self._own = transport, NOWHERE
        if transport is not None and transport.get_extra_info("sslcontext") is None:
            sock = transport.get_extra_info("socket")
            self._own = sock.fileno() if sock is not None else NOWHERE
        self.descriptor = NOWHERE if backed_up else self._own

    def backed_up(self) -> None:
        """Bytes wait in the transport."""
        self.descriptor = NOWHERE

    def writable(self) -> None:
        """None do any more."""
        self.descriptor = self._own

    def close(self) -> None:
        """The connection is lost: the next one may have its descriptor."""
        self._transport, self._own, self.descriptor = None, NOWHERE, NOWHERE

    def write_later(self, data: bytes) -> None:
        """By the transport, in order. Who is gone gets nothing; never raises: others are behind."""
        transport = self._transport
        if transport is not None and not transport.is_closing():
            transport.write(data)


GONE = Outlet(None)
"""Of a client that left before its answer began; and whatever comes behind the last one."""


class Outbox:
    """`waiting` is filled by its users, who call `due` before the first entry."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Outlet, bytes]] = []

    def due(self) -> None:
        """Something will be waiting."""
        asyncio.get_running_loop().call_soon(self.flush)

    def put(self, outlet: Outlet, data: bytes) -> None:
        """Write at the end of this turn."""
        if not self.waiting:
            self.due()
        self.waiting.append((outlet, data))

    def flush(self) -> None:
        """Write everything now."""
        if not self.waiting:
            return
        batch = self.waiting[:]
        self.waiting.clear()
        batch.append((GONE, b""))
        send, entries = os.write, iter(batch)
        last, held = next(entries)
        for outlet, data in entries:
            if outlet is last:
                held += data
                continue
            if last.descriptor == NOWHERE:
                last.write_later(held)
            else:
                try:
                    num_sent = send(last.descriptor, held)
                except OSError:  # full, or gone: the transport finds out which, and what follows from it
                    num_sent = 0
                if num_sent < len(held):
                    last.write_later(held[num_sent:])
            last, held = outlet, data
