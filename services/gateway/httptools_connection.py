"""One HTTP connection: which request runs, what happens when it is answered, and when it has waited too long.

A request costs here what it must: a head becomes an `Exchange` (httptools_exchange.py), the app gets that in a task of
its own, and everything written leaves without an await (architecture §2). uvicorn's protocol, which this took the place
of, needs 78 µs for a request where this needs 45 (docs/adr/0023-http-by-a-protocol-of-our-own.md).

Bounds: those of what is read (httptools_reader.py), time to rest, and answers that are not read. Refusals are
OpenAI-shaped JSON.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from .httptools_exchange import STATUS_LINE, Exchange
from .httptools_reader import Reader
from .outbox import Outlet

if TYPE_CHECKING:
    from .httptools_server import HttpServer

log = logging.getLogger(__name__)

LINGER_S = 1.0
TLS_HIGH_WATER_BYTES = 64 * 1024
"""Without TLS a client is backed up as soon as its socket does not take what is written (outbox.py)."""


def error_json(message: str, code: str) -> bytes:
    """OpenAI's error body for what never reaches a route."""
    safe = message.replace("\\", "\\\\").replace('"', '\\"')
    text = f'{{"error":{{"message":"{safe}","type":"invalid_request_error","param":null,"code":"{code}"}}}}'
    return text.encode()


class Connection(Reader):
    """One client connection. `on_close` is called once if the client goes away before the response is complete."""

    # Slots: 2 KB less for each connection that only waits.
    __slots__ = (
        "_held", "_leaving", "_outlet", "_server", "address", "on_close", "on_paused", "on_writable", "outbox",
        "write_paused",
    )  # fmt: skip

    def __init__(self, server: HttpServer) -> None:
        super().__init__(server.limits, server.loop)
        self._server, self.outbox = server, server.outbox
        self._held = self._leaving = self.write_paused = False
        self.address = ""
        self._outlet: Outlet | None = None
        self.on_close: Callable[[], object] | None = None
        self.on_writable: Callable[[], None] | None = None
        self.on_paused: Callable[[], None] | None = None

    # the transport -----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # never another one
        self.transport, server = transport, self._server
        server.connections.add(self)
        transport.set_write_buffer_limits(high=TLS_HIGH_WATER_BYTES if server.encrypted else 0)
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if isinstance(peer, tuple) and peer else ""
        if server.ending:
            self.end_after_the_last()
        num_alike = server.num_from[self.address] = server.num_from.get(self.address, 0) + 1
        if len(server.connections) > server.limits.max_connections:
            self.refuse(503, "too many connections", "not_ready")
        elif server.door.is_out(self.address):
            transport.abort()
        elif num_alike > server.limits.max_connections_per_address:
            self.refuse(429, "too many connections from this address", "rate_limit_exceeded")

    def connection_lost(self, exc: Exception | None) -> None:
        server = self._server
        server.connections.discard(self)
        left = server.num_from.pop(self.address) - 1
        if left:
            server.num_from[self.address] = left
        self.write_paused = False
        if self._outlet is not None:
            self._outlet.close()
        self._gone()
        self.forget()
        self.on_writable = self.on_paused = None

    def _gone(self) -> bool:
        """Tell who watches. False: nobody does."""
        on_close, self.on_close = self.on_close, None
        if on_close is None:
            return False
        on_close()
        return True

    def eof_received(self) -> bool | None:
        """The client has left, or sends no more, which nobody can tell apart while it waits for its answer. The
        answer is given up first and the socket closed after that, so that no token is counted which could no
        longer be sent. (TLS closes by itself.)"""
        self._leaving = True
        if not self._gone() or self.transport.get_extra_info("sslcontext") is not None:
            return None
        self.loop.call_soon(self.transport.close)
        return True

    def pause_writing(self) -> None:
        self.write_paused = True
        if self._outlet is not None:
            self._outlet.backed_up()
        if self.on_paused is not None:
            self.on_paused()

    def resume_writing(self) -> None:
        self.write_paused = False
        if self._outlet is not None:
            self._outlet.writable()
        if self._held:
            self._held, self.deadline_s = False, None
            self._next()
        elif self.on_writable is not None:
            self.on_writable()

    def outlet(self) -> Outlet:
        """Where streams are written."""
        if self._outlet is None:
            self._outlet = Outlet(self.transport, backed_up=self.write_paused)
        return self._outlet

    def welcome(self) -> None:
        """A request of this client had a key."""
        if self._server.door.enabled:
            self._server.door.served(self.address)

    def offended(self) -> None:
        """This client had to be cut, or has no key."""
        if self._server.door.enabled:
            self._server.door.offended(self.address)

    # requests and answers ----------------------------------------------------------------------------------

    def begin(self, exchange: Exchange) -> None:
        self.running = exchange
        task = self.loop.create_task(self._serve(exchange))
        self._server.tasks.add(task)
        task.add_done_callback(self._server.tasks.discard)

    async def _serve(self, exchange: Exchange) -> None:
        """Whatever the app does, its client gets an answer or an end."""
        try:
            await self._server.app(exchange)
        except Exception:
            log.exception("the HTTP application failed")
        finally:
            if not (exchange.complete or self._leaving or exchange.closed):
                if exchange.started:
                    self.transport.close()
                else:
                    exchange.keep_alive = False
                    body = error_json("an internal error", "internal")
                    exchange.respond(500, b"content-type: application/json\r\n", body)

    def answered(self, exchange: Exchange) -> None:
        """The response is complete."""
        self.on_close = self.on_writable = self.on_paused = None
        if not exchange.keep_alive:
            self._close_when_sent(exchange)
        elif self.write_paused and not self.transport.is_closing():
            # Who does not read its answers gets no further ones: those would pile up here, an answer for each 40
            # bytes that it sent ahead. It is not read from either until it has taken what there is.
            self._held = True
            self.pause_reading()
            self._bound_the_rest()
        else:
            self._next()

    def _next(self) -> None:
        """The next request that came ahead, or rest."""
        self.running = None
        if self.transport.is_closing():
            return
        self.resume_reading()
        if self.ahead:
            self.begin(self.ahead.popleft())
        elif self.latest is None:
            self.rest()

    # bounds ------------------------------------------------------------------------------------------------

    def sweep(self, now_s: float) -> None:
        """Cut who takes too long."""
        if self.deadline_s is None or now_s <= self.deadline_s:
            return
        if self.write_paused or self.transport.is_closing():
            self.offended()
            self.transport.abort()
        elif self.resting:
            self.transport.close()
        else:
            self.refuse(408, "the request took too long to arrive", "request_timeout")

    def refuse(self, status: int, message: str, code: str) -> None:
        """Answer outside any request and close."""
        if status != 503:
            self.offended()
        answering = self.running is not None and self.running.started and not self.running.complete
        if not self.transport.is_closing() and not answering:
            body = error_json(message, code)
            head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(
                body
            )
            self.transport.write(STATUS_LINE[status] + head + body)
        self._bound_the_rest()
        self.transport.close()

    def _bound_the_rest(self) -> None:
        """What is written has so long to be taken: a peer that answers every probe and reads nothing would be waited
        for without end."""
        self.deadline_s = self.loop.time() + self._server.limits.body_timeout_s

    def _close_when_sent(self, exchange: Exchange) -> None:
        """Close after the last response. A client that still sends its body is given a moment to read what we
        answered: closing at once would reset the connection, answer and all (RFC 9112 §9.6)."""
        if exchange.more_body:
            self.resume_reading()
            self.loop.call_later(LINGER_S, self.transport.close)
        else:
            self.transport.close()
        self._bound_the_rest()
