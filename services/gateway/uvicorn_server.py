"""The HTTP server: uvicorn's httptools protocol, with bounds on what a client may do and synchronous writes.

Two additions to uvicorn, both here and nowhere else:

- `Exchange` methods that write a response without an await, so that a token's way ends in `transport.write`
  (architecture §2). They keep uvicorn's own cycle state right, so keep-alive and pipelining still work; the
  pinned version and tests/unit/gateway/test_uvicorn_server.py guard that.
- bounds: header bytes, time to send headers and body (one sweep a second over all connections instead of timers
  per request), number of connections (over all and per address), requests sent ahead of their answers, and answers
  that are not read. Refusals are OpenAI-shaped JSON.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from typing import Any, ClassVar, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from ..config import LimitsConfig
from .outbox import Outbox
from .sockets import bind
from .uvicorn_exchange import Exchange

log = logging.getLogger(__name__)

MAX_HEADER_BYTES = 32 * 1024
MAX_HEADERS = 100
SWEEP_EVERY_S = 1.0
LINGER_S = 1.0
WRITE_HIGH_WATER_BYTES = 64 * 1024
MAX_PIPELINED = 100
TLS_SHUTDOWN_S = 1.0
"""How long a client may take to say goodbye; then it is cut."""


class _Refused(Exception):
    """Raised in a parser callback: the request line or the headers are over a bound."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


def error_json(message: str, code: str) -> bytes:
    """OpenAI's error body for what never reaches a route."""
    safe = message.replace("\\", "\\\\").replace('"', '\\"')
    text = f'{{"error":{{"message":"{safe}","type":"invalid_request_error","param":null,"code":"{code}"}}}}'
    return text.encode()


class Connection(HttpToolsProtocol):
    """One client connection. `on_close` is called once if the client goes away before the response is complete."""

    # Ours in slots: with them uvicorn's own attributes are few enough (30) for CPython to share the keys of all
    # connections' dictionaries, which is 2 KB for each that only waits.
    __slots__ = (
        "_address", "_deadline_s", "_header_bytes", "_held", "_refusal", "on_close", "on_paused", "on_writable",
    )  # fmt: skip

    limits: LimitsConfig = LimitsConfig()
    num_from: ClassVar[dict[str, int]] = {}
    """Open connections by address; every server has its own."""
    outbox: ClassVar[Outbox] = Outbox()
    """Where streams are written; every server has its own."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=WRITE_HIGH_WATER_BYTES)
        self._address = self.client[0] if self.client else ""
        num_alike = self.num_from[self._address] = self.num_from.get(self._address, 0) + 1
        self._held = False
        self.on_close: Callable[[], None] | None = None
        self.on_writable: Callable[[], None] | None = None
        self.on_paused: Callable[[], None] | None = None
        self._header_bytes = 0
        self._deadline_s: float | None = self.loop.time() + self.limits.header_timeout_s
        self._refusal: _Refused | None = None
        if len(self.connections) > self.limits.max_connections:
            self.refuse(503, "too many connections", "not_ready")
        elif num_alike > self.limits.max_connections_per_address:
            self.refuse(429, "too many connections from this address", "rate_limit_exceeded")

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        left = self.num_from.pop(self._address) - 1
        if left:
            self.num_from[self._address] = left
        on_close, self.on_close = self.on_close, None
        if on_close is not None:
            on_close()

    def eof_received(self) -> bool | None:  # type: ignore[override]  # uvicorn's has no result
        """The client has left, or sends no more, which nobody can tell apart while it waits for its answer. The
        answer is given up first and the socket closed after that, so that no token is counted which could no
        longer be sent. (TLS closes by itself.)"""
        on_close, self.on_close = self.on_close, None
        if on_close is None:
            return None
        on_close()
        if self.scheme == "https":
            return None
        self.loop.call_soon(self.transport.close)
        return True

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.on_paused is not None:
            self.on_paused()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._held:
            self._held, self._deadline_s = False, None
            self._next()
        elif self.on_writable is not None:
            self.on_writable()

    # bounds ------------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= MAX_PIPELINED:
            self._refusal = _Refused(429, "too many requests ahead of their answers")
            raise self._refusal
        super().on_message_begin()
        self._header_bytes = 0
        self._deadline_s = self.loop.time() + self.limits.header_timeout_s

    def on_url(self, url: bytes) -> None:
        self._count(len(url), 414, "the request target is too long")
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + 4, 431, "the headers are too large")
        if len(self.headers) >= MAX_HEADERS:
            self._refusal = _Refused(431, "too many headers")
            raise self._refusal
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._deadline_s = self.loop.time() + self.limits.body_timeout_s
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._deadline_s = None
        super().on_message_complete()

    def _count(self, num_bytes: int, status: int, message: str) -> None:
        self._header_bytes += num_bytes
        if self._header_bytes > MAX_HEADER_BYTES:
            self._refusal = _Refused(status, message)
            raise self._refusal

    def on_response_complete(self) -> None:
        self.on_close = None
        self.on_writable = self.on_paused = None
        if self.flow.write_paused and not self.transport.is_closing():
            # Who does not read its answers gets no further ones: those would pile up here, an answer for each 40
            # bytes that it sent ahead. It is not read from either until it has taken what there is.
            self._held = True
            self.flow.pause_reading()
            self._bound_the_rest()
        else:
            self._next()

    def _next(self) -> None:
        """The next request that came ahead, or rest: then nothing is kept of the last one (3 KB), unless the head of
        one more is on its way already."""
        cycle = cast("RequestResponseCycle | None", self.cycle)
        if not self.pipeline and cycle is not None and not cycle.more_body:
            self.cycle = None  # type: ignore[assignment]  # as before the first request
            if self.scope is cycle.scope:
                self.scope = self.headers = None  # type: ignore[assignment]  # likewise
        super().on_response_complete()

    def overdue(self, now_s: float) -> bool:
        """True when the client took too long to send its request."""
        return self._deadline_s is not None and now_s > self._deadline_s

    def send_400_response(self, msg: str) -> None:
        refusal = self._refusal or _Refused(400, "this is not a valid HTTP request")
        self.refuse(refusal.status, refusal.message, "invalid_http")

    @property
    def _answering(self) -> bool:
        cycle = cast(
            "RequestResponseCycle | None", self.cycle
        )  # uvicorn leaves it None until the first request
        return cycle is not None and cycle.response_started and not cycle.response_complete

    def refuse(self, status: int, message: str, code: str) -> None:
        """Answer outside any request and close."""
        if not self.transport.is_closing() and not self._answering:
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
        self._deadline_s = self.loop.time() + self.limits.body_timeout_s

    def close_when_sent(self, cycle: RequestResponseCycle) -> None:
        """Close after the last response. A client that still sends its body is given a moment to read what we
        answered: closing at once would reset the connection, answer and all (RFC 9112 §9.6)."""
        if cycle.more_body:
            self.flow.resume_reading()
            self.loop.call_later(LINGER_S, self.transport.close)
        else:
            self.transport.close()
        self._bound_the_rest()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        cycle.scope["exchange"] = Exchange(self, cycle)  # type: ignore[typeddict-unknown-key]  # for the app
        super()._start_asgi_task(cycle, app)


class HttpServer:
    """uvicorn's protocol on a socket of ours, inside a running event loop."""

    def __init__(self, app: Callable[..., Any], limits: LimitsConfig) -> None:
        self._protocol: type[Connection] = type(
            "BoundConnection", (Connection,), {"limits": limits, "num_from": {}, "outbox": Outbox()}
        )
        self._config = uvicorn.Config(
            app, http=self._protocol, ws="none", lifespan="off", interface="asgi3", access_log=False,
            log_config=None, server_header=False, date_header=False, proxy_headers=False,
            timeout_keep_alive=limits.idle_timeout_s,  # type: ignore[arg-type]  # seconds, for loop.call_later
        )  # fmt: skip
        self._handshake_s = limits.header_timeout_s
        self._state = ServerState()
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None

    @property
    def connections(self) -> list[Connection]:
        """Open client connections."""
        return [c for c in self._state.connections if isinstance(c, Connection)]

    async def start(
        self, host: str, port: int, *, reuse_port: bool = False, tls: ssl.SSLContext | None = None
    ) -> int:
        """Listen and return the port. Raises ConfigError when the port is taken."""
        self._config.load()
        sock = bind(host, port, reuse_port=reuse_port)
        self._server = await asyncio.get_running_loop().create_server(
            self._connection,
            sock=sock,
            backlog=4096,
            ssl=tls,
            ssl_handshake_timeout=self._handshake_s if tls is not None else None,
            ssl_shutdown_timeout=TLS_SHUTDOWN_S if tls is not None else None,
        )
        self._sweeper = asyncio.create_task(self._sweep())
        return sock.getsockname()[1]

    def _connection(self) -> Connection:
        return self._protocol(config=self._config, server_state=self._state, app_state={})

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_EVERY_S)
            now_s = asyncio.get_running_loop().time()
            for connection in self.connections:
                if not connection.overdue(now_s):
                    continue
                if connection.flow.write_paused or connection.transport.is_closing():
                    connection.transport.abort()
                else:
                    connection.refuse(408, "the request took too long to arrive", "request_timeout")

    async def stop(self, grace_s: float) -> None:
        """Stop listening, let what runs finish for `grace_s` seconds, then cut it. Idle connections close now."""
        if self._server is None:
            return
        self._server.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in self.connections:
            connection.shutdown()
        deadline_s = asyncio.get_running_loop().time() + grace_s
        while self.connections and asyncio.get_running_loop().time() < deadline_s:  # noqa: ASYNC110  # uvicorn tells nobody
            await asyncio.sleep(0.02)
        for connection in self.connections:
            connection.transport.abort()
