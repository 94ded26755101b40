"""Links over asyncio TCP. `send` only appends; everything sent in one event-loop turn leaves as one frame.

No task and no await per message: `on_message` is called from the transport's read callback, so a token's way
through a process is a chain of plain function calls.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Protocol, cast

from ..errors import LinkClosed
from .frames import encode_frame
from .messages import AnyMessage, Ping
from .session import Liveness, Role, Session

log = logging.getLogger(__name__)

PING_EVERY_S = 0.2
DEAD_AFTER_S = 1.0
MAX_BACKLOG_BYTES = 64 * 1024 * 1024
"""A peer that leaves this much unread is treated as dead: its streams migrate, our memory stays bounded."""


class Handler(Protocol):
    """What a link's owner provides. Called on the event loop; must not block and must not raise. One that also has
    `link_messages(link, messages)` gets all messages of a read at once."""

    def link_up(self, link: Link) -> None: ...
    def link_message(self, link: Link, message: AnyMessage) -> None: ...
    def link_down(self, link: Link, why: str) -> None: ...


class Link(asyncio.Protocol):
    """One authenticated connection. `name` identifies the peer (the client names itself)."""

    def __init__(
        self, role: Role, key: bytes, handler: Handler, name: str = "", dead_after_s: float = DEAD_AFTER_S
    ) -> None:
        self._session = Session(role, key, name)
        self._handler = handler
        self._take_all: Callable[[Link, list[AnyMessage]], None] = getattr(
            handler, "link_messages", self._one_by_one
        )
        self._dead_after_s = dead_after_s
        self._outbox: list[object] = []
        self._flushing = False
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._liveness: Liveness | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._why = "closed by the peer"
        self.silent = False
        """It ended because the peer said nothing: the peer may live."""
        self.up: asyncio.Future[None] = self._loop.create_future()

    @property
    def name(self) -> str:
        return self._session.name

    @property
    def is_open(self) -> bool:
        return self._transport is not None and self._session.ready and not self._transport.is_closing()

    def send(self, message: object) -> None:
        """Queue a message for the frame of this event-loop turn. Silently dropped once the link is down: the
        owner learns of that by `link_down` and recovers there."""
        self._outbox.append(message)
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def close(self, why: str = "closed by us") -> None:
        self._why = why
        if self._transport is not None:
            self._transport.abort()

    def _flush(self) -> None:
        self._flushing = False
        transport = self._transport
        if transport is None or not self._session.ready or transport.is_closing():
            self._outbox.clear()
            return
        messages, self._outbox = self._outbox, []
        transport.write(encode_frame(messages))
        if transport.get_write_buffer_size() > MAX_BACKLOG_BYTES:
            self.close("the peer does not read")

    # asyncio.Protocol ----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._liveness = Liveness(
            self._loop.time(), ping_every_s=PING_EVERY_S, dead_after_s=self._dead_after_s
        )
        self._timer = self._loop.call_later(PING_EVERY_S, self._tick)
        if greeting := self._session.greeting():
            self._transport.write(greeting)

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        assert self._liveness is not None
        self._liveness.heard(self._loop.time())
        session = self._session
        was_ready, reply = session.ready, b""
        try:
            if was_ready:
                messages = session.messages(data)
            else:
                messages, reply = session.receive(data)
        except LinkClosed as error:
            self.close(error.message)
            return
        if reply:
            self._transport.write(reply)
        if not was_ready and session.ready:
            if not self.up.done():
                self.up.set_result(None)
            self._handler.link_up(self)
        if messages:
            self._take_all(self, messages)

    def _one_by_one(self, _: Link, messages: list[AnyMessage]) -> None:
        for message in messages:
            if type(message) is not Ping:
                self._handler.link_message(self, message)

    def connection_lost(self, exc: Exception | None) -> None:
        was_ready = self._session.ready
        if self._timer is not None:
            self._timer.cancel()
        why = str(exc) if exc is not None else self._why
        self._transport = None
        if not self.up.done():
            self.up.set_exception(LinkClosed(why))
            self.up.exception()  # whoever awaits `up` still sees it; nobody need
        if was_ready:
            self._handler.link_down(self, why)

    def _tick(self) -> None:
        assert self._liveness is not None
        if self._transport is None or self._transport.is_closing():
            return
        if self._liveness.tick(self._loop.time()):
            self.silent = True
            self.close(f"silent for {self._dead_after_s} s")
            return
        if self._session.ready and not self._outbox:
            self.send(Ping())
        self._timer = self._loop.call_later(PING_EVERY_S, self._tick)


class LinkServer:
    """Accepts links. `address` is host:port once started."""

    def __init__(self, handler: Handler, key: bytes, dead_after_s: float = DEAD_AFTER_S) -> None:
        self._handler, self._key, self._dead_after_s = handler, key, dead_after_s
        self._server: asyncio.Server | None = None
        self.address = ""

    async def start(self, host: str = "127.0.0.1", port: int = 0, sock: socket.socket | None = None) -> str:
        """Listen (port 0: any; or on a socket that is bound) and return the address. Raises OSError when the port is
        taken."""
        loop = asyncio.get_running_loop()

        def accepted() -> Link:
            return Link(Role.SERVER, self._key, self._handler, dead_after_s=self._dead_after_s)

        if sock is not None:
            self._server = await loop.create_server(accepted, sock=sock)
        else:
            self._server = await loop.create_server(accepted, host, port)
        bound = self._server.sockets[0].getsockname()
        self.address = f"{bound[0]}:{bound[1]}"
        return self.address

    def fileno(self) -> int:
        """Of the listening socket, once started."""
        assert self._server is not None
        return self._server.sockets[0].fileno()

    def close(self) -> None:
        if self._server is not None:
            self._server.close()


async def connect(
    address: str, key: bytes, handler: Handler, name: str, dead_after_s: float = DEAD_AFTER_S
) -> Link:
    """Open and authenticate a link. Raises OSError or LinkClosed."""
    host, _, port = address.rpartition(":")
    loop = asyncio.get_running_loop()
    _, link = await loop.create_connection(
        lambda: Link(Role.CLIENT, key, handler, name, dead_after_s), host.strip("[]"), int(port)
    )
    try:
        async with asyncio.timeout(5.0):
            await link.up
    except BaseException:
        link.close("nobody waits for this link any more")  # or it would come up later, beside the next one
        raise
    return link


Resolve = Callable[[], Awaitable[tuple[str, bytes]]]
"""Finds a peer's current (address, key); may be called again after each loss. May raise."""


AGAIN_WITHIN_S = 1.0
MAX_RESETS = 3
"""So often a peer that was dying when we dialled is dialled once more where it was."""


class Redial:
    """Keeps one link to a peer that may die and come back elsewhere. Retries for ever, with backoff to 1 s. After a
    loss it first tries, once, where the peer was: who took over its socket is there at once, while whoever knows where
    peers are may be gone as well. `on_refused`: its host answered that nobody listens there any more, so the peer is
    dead, which silence never proves."""

    def __init__(
        self,
        resolve: Resolve,
        handler: Handler,
        name: str,
        dead_after_s: float = DEAD_AFTER_S,
        on_refused: Callable[[], None] | None = None,
    ) -> None:
        self._resolve, self._handler, self._name = resolve, handler, name
        self._on_refused = on_refused
        self._dead_after_s = dead_after_s
        self._task: asyncio.Task[None] | None = None
        self._down = asyncio.Event()
        self.link: Link | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
        if self.link is not None:
            self.link.close("stopped")

    def link_up(self, link: Link) -> None:
        self.link = link
        self._down.clear()
        self._handler.link_up(link)

    def link_message(self, link: Link, message: AnyMessage) -> None:
        self._handler.link_message(link, message)

    def link_messages(self, link: Link, messages: list[AnyMessage]) -> None:
        """All of a read, without a call in between for each."""
        take = self._handler.link_message
        for message in messages:
            if type(message) is not Ping:
                take(link, message)

    def link_down(self, link: Link, why: str) -> None:
        self.link = None
        self._down.set()
        self._handler.link_down(link, why)

    async def _keep(self) -> None:
        backoff_s = 0.02
        known: tuple[str, bytes] | None = None
        resets = 0
        while True:
            again, known = known, None
            try:
                async with asyncio.timeout(AGAIN_WITHIN_S if again is not None else None):
                    found = again if again is not None else await self._resolve()
                    await connect(*found, self, self._name, self._dead_after_s)
                known, backoff_s, resets = found, 0.02, 0
                await self._down.wait()
            except (OSError, LinkClosed, TimeoutError) as error:
                log.debug("%s cannot reach its peer: %s", self._name, error)
                if again is not None and isinstance(error, ConnectionRefusedError):
                    if self._on_refused is not None:
                        self._on_refused()
                elif again is not None and not isinstance(error, TimeoutError) and resets < MAX_RESETS:
                    known, resets = again, resets + 1  # it was dying when we came: its host will say so
            except asyncio.CancelledError:
                raise
            except Exception:
                log.exception("%s: resolving a peer failed", self._name)
            await asyncio.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, 1.0)
