"""One request on a connection, its body as it comes, and its response, written without an await.

Rules: the other half of httptools_connection.py, which makes one for each request head; keeps the order of a response
(head, chunks, end) right, and says when it is complete. What a connection may do is decided there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING

from ..text.json_pieces import JsonPieces
from .outbox import GONE, Outbox, Outlet

if TYPE_CHECKING:
    from .httptools_connection import Connection

STATUS_LINE = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
} | {499: b"HTTP/1.1 499 \r\n"}
_SSE_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
    b"x-accel-buffering: no\r\ntransfer-encoding: chunked\r\n"
)
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


READ_AHEAD_BYTES = 64 * 1024
"""Of a body that nobody asked for yet: then its client is not read from."""


class BodyTooLarge(Exception):
    """More came than was asked for."""


class _ChunkHeads(dict[int, bytes]):
    """The line before a chunk of so many bytes. Formatting costs more than the rest of an event does."""

    def __missing__(self, num_bytes: int) -> bytes:
        head = self[num_bytes] = b"%x\r\n" % num_bytes
        return head


_CHUNK_HEADS = _ChunkHeads()


class Exchange:
    """One request and its response. `path` and `query` are the raw ones; `headers` have lower-case names, of
    several alike the last one counts. Not the connection itself: a pipelining client has several requests on it."""

    __slots__ = (
        "_arrived", "_connection", "_continue", "_max_bytes", "_outbox", "_outlet", "_pieces", "complete", "headers",
        "keep_alive", "method", "more_body", "more_headers", "num_bytes", "path", "query", "started",
    )  # fmt: skip

    def __init__(
        self, connection: Connection, method: str, path: bytes, headers: dict[bytes, bytes], keep_alive: bool
    ) -> None:
        self._connection, self._outbox = connection, connection.outbox
        self._outlet = GONE
        self.method, self.path, self.headers, self.keep_alive = method, path, headers, keep_alive
        self._continue = headers.get(b"expect", b"").lower() == b"100-continue"
        self._pieces: list[bytes] = []
        self._arrived: asyncio.Future[None] | None = None
        self.query = b""
        self._max_bytes = READ_AHEAD_BYTES
        self.num_bytes = 0
        self.more_headers = b""  # lines of whatever response is given
        self.more_body = True
        self.started = self.complete = False

    # the request -------------------------------------------------------------------------------------------

    @property
    def address(self) -> str:
        """Of the client; "" where it has none."""
        return self._connection.address

    async def body(self, max_bytes: int) -> bytes | None:
        """All of it, once; None when the client went away while sending. Raises BodyTooLarge."""
        if self.more_body and self.num_bytes <= max_bytes:
            connection = self._connection
            if connection.transport.is_closing():
                return None
            if self._continue and not self.num_bytes:
                connection.transport.write(CONTINUE)
            self._max_bytes = max_bytes
            self._arrived = connection.loop.create_future()
            connection.resume_reading()
            await self._arrived
        if self.num_bytes > max_bytes:
            raise BodyTooLarge
        if self.more_body:
            return None
        pieces, self._pieces = self._pieces, []
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def arrived(self, piece: bytes) -> None:
        """A piece of the body; b"": that was all. `ahead` may become true."""
        if piece:
            self._pieces.append(piece)
            self.num_bytes += len(piece)
            if self.num_bytes > self._max_bytes:
                self.wake()
        else:
            self.more_body = False
            self.wake()

    @property
    def ahead(self) -> bool:
        """More came than anybody asked for."""
        return self.num_bytes > self._max_bytes

    def wake(self) -> None:
        """Who waits for the body need not wait any longer: it is there, too large, or will not come."""
        arrived, self._arrived = self._arrived, None
        if arrived is not None and not arrived.done():
            arrived.set_result(None)

    # the client --------------------------------------------------------------------------------------------

    def welcome(self) -> None:
        """This request had a key."""
        self._connection.welcome()

    @property
    def closed(self) -> bool:
        return self._connection.transport.is_closing()

    @property
    def left(self) -> bool:
        """The client went while it was watched, or nobody watches it."""
        return self._connection.on_close is None

    @property
    def write_paused(self) -> bool:
        return self._connection.write_paused

    @property
    def buffered_bytes(self) -> int:
        """Bytes that the client has not taken yet."""
        transport = self._connection.transport
        return 0 if transport.is_closing() else transport.get_write_buffer_size()

    def watch(
        self,
        *,
        on_close: Callable[[], object],
        on_writable: Callable[[], None] | None = None,
        on_paused: Callable[[], None] | None = None,
    ) -> None:
        """`on_close`: the client went before its answer was complete; `on_paused`, `on_writable`: its socket is
        backed up, takes data again."""
        connection = self._connection
        connection.on_close, connection.on_writable, connection.on_paused = on_close, on_writable, on_paused

    # the response ------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """What was said so far leaves now: it is counted, and the connection may be closed next."""
        self._outbox.flush()

    def respond(self, status: int, headers: bytes, body: bytes) -> None:
        """A complete response in one write. `headers` are complete lines, each with its CRLF."""
        transport = self._connection.transport
        if self.started or transport.is_closing():
            return
        self.started = True
        if status == 401:
            self._connection.offended()
        close = b"" if self.keep_alive else b"connection: close\r\n"
        payload = b"" if self.method == "HEAD" else body
        transport.write(
            b"%b%b%b%bcontent-length: %d\r\n\r\n%b"
            % (STATUS_LINE[status], headers, self.more_headers, close, len(body), payload)
        )
        self._complete()

    def start_stream(self, headers: bytes) -> None:
        """Begin a chunked event stream. From here to its end everything goes through the outbox."""
        if self.started or self.closed:
            return
        self.started = True
        close = b"" if self.keep_alive else b"connection: close\r\n"
        self._outlet = self._connection.outlet()
        self._outbox.put(self._outlet, b"".join((_SSE_HEAD, headers, self.more_headers, close, b"\r\n")))

    def write_chunk(self, data: bytes) -> None:
        """One piece of the stream, sent with this turn of the event loop. An empty one is none: it would end it."""
        if data:
            self._outbox.put(self._outlet, b"%x\r\n%b\r\n" % (len(data), data))

    def chunk_writer(self, prefix: bytes, suffix: bytes, pieces: JsonPieces) -> Callable[[int], None]:
        """Sends `prefix`, the piece of a token and `suffix` as one piece of the stream. Raises KeyError, and sends
        nothing, for a token without one."""

        # Defaults instead of a closure: one tuple to fetch for each token instead of a cell for each name.
        def say(
            token_id: int,
            endings: Mapping[int, bytes] = pieces.ending_in(suffix + b"\r\n"),
            more: int = len(prefix) - 2,
            prefix: bytes = prefix,
            heads: Mapping[int, bytes] = _CHUNK_HEADS,
            outbox: Outbox = self._outbox,
            waiting: list[tuple[Outlet, bytes]] = self._outbox.waiting,
            outlet: Outlet = self._outlet,
        ) -> None:
            ending = endings[token_id]
            if not waiting:
                outbox.due()
            waiting.append((outlet, heads[more + len(ending)] + prefix + ending))

        return say

    def end_stream(self, data: bytes = b"") -> None:
        """The last piece, if any, and the end of the stream."""
        if self.closed or self.complete:
            return
        tail = b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data) if data else b"0\r\n\r\n"
        self._outbox.put(self._outlet, tail)
        self._outbox.flush()  # before the connection may be closed, or answers the next request
        self._complete()

    def _complete(self) -> None:
        self.complete = True
        self.wake()
        self._connection.answered(self)
