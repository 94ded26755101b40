"""The HTTP server: connections (httptools_connection.py) on a socket of ours, bounded in number, over all and by
address, and swept once a second for those that take too long.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from ..clock import SystemClock
from ..config import LimitsConfig
from .doorman import Doorman
from .httptools_connection import Connection
from .httptools_exchange import Exchange
from .outbox import Outbox
from .sockets import bind

SWEEP_EVERY_S = 1.0
TLS_SHUTDOWN_S = 1.0
"""How long a client may take to say goodbye; then it is cut."""

App = Callable[[Exchange], Awaitable[None]]


class HttpServer:
    """Connections on a socket of ours, inside a running event loop. `num_from`: open connections by address. `door` is
    told who had to be cut, and who is welcome."""

    def __init__(self, app: App, limits: LimitsConfig, door: Doorman | None = None) -> None:
        self.app, self.limits = app, limits
        self.door = door or Doorman(0, SystemClock())
        self.door.on_out = self._shut_out
        self.outbox = Outbox()
        self.connections: set[Connection] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.num_from: dict[str, int] = {}
        self.encrypted = self.ending = False
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None

    async def start(
        self, host: str, port: int, *, reuse_port: bool = False, tls: ssl.SSLContext | None = None
    ) -> int:
        """Listen and return the port. Raises ConfigError when the port is taken."""
        self.encrypted = tls is not None
        self._socket = sock = bind(host, port, reuse_port=reuse_port)
        self.loop = asyncio.get_running_loop()
        self._tls: dict[str, Any] = {
            "ssl": tls,
            "ssl_handshake_timeout": self.limits.header_timeout_s if tls is not None else None,
            "ssl_shutdown_timeout": TLS_SHUTDOWN_S if tls is not None else None,
        }
        self._server = await self.loop.create_server(self._connection, sock=sock, backlog=4096, **self._tls)
        self._sweeper = asyncio.create_task(self._sweep())
        return sock.getsockname()[1]

    def _connection(self) -> Connection:
        return Connection(self)

    def _shut_out(self, address: str) -> None:
        """Who of it has no request running is cut."""
        for connection in list(self.connections):
            if connection.address == address and connection.running is None:
                connection.transport.abort()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_EVERY_S)
            now_s = self.loop.time()
            for connection in list(self.connections):
                connection.sweep(now_s)

    async def stop(self, grace_s: float) -> None:
        """Stop listening, let what runs finish for `grace_s` seconds, then cut it. Idle connections close now; who has
        connected and not asked yet is answered."""
        if self._server is None:
            return
        self.ending = True
        late = self._take_who_waits()
        self._server.close()
        for connection in list(self.connections):
            connection.end_after_the_last()
        greeting = [
            self.loop.create_task(self.loop.connect_accepted_socket(self._connection, sock, **self._tls))
            for sock in late
        ]
        deadline_s = self.loop.time() + grace_s
        while self.loop.time() < deadline_s and (  # noqa: ASYNC110  # few wait, and seldom
            self.connections or not all(task.done() for task in greeting)
        ):
            await asyncio.sleep(0.02)
        for task in greeting:
            task.cancel()
        await asyncio.gather(*greeting, return_exceptions=True)
        for connection in list(self.connections):
            connection.transport.abort()
        if self._sweeper is not None:
            self._sweeper.cancel()

    def _take_who_waits(self) -> list[socket.socket]:
        """Connections that the kernel has accepted and nobody has taken: it would reset them, whichever other gateway
        shares the port."""
        late: list[socket.socket] = []
        with suppress(OSError):  # nobody waits any more
            while True:
                late.append(self._socket.accept()[0])
                late[-1].setblocking(False)
        return late
