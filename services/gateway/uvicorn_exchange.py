"""One request on a connection, and its response, written without an await.

Rules: the other half of uvicorn_server.py: keeps uvicorn's own cycle state right while it writes past it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

if TYPE_CHECKING:
    from .uvicorn_server import Connection

_SSE_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
    b"x-accel-buffering: no\r\ntransfer-encoding: chunked\r\n"
)


class Exchange:
    """One request on a connection, and its response, written without an await. The app finds it in
    `scope["exchange"]`. Not the connection itself: a pipelining client has several requests on it."""

    __slots__ = ("_connection", "_cycle", "_flow", "_write")

    def __init__(self, connection: Connection, cycle: RequestResponseCycle) -> None:
        self._connection, self._cycle = connection, cycle
        self._flow, self._write = connection.flow, connection.transport.write

    @property
    def closed(self) -> bool:
        return self._connection.transport.is_closing()

    @property
    def write_paused(self) -> bool:
        return self._flow.write_paused

    @property
    def buffered_bytes(self) -> int:
        """Bytes that the client has not taken yet."""
        transport = self._connection.transport
        return 0 if transport.is_closing() else transport.get_write_buffer_size()

    def watch(
        self,
        *,
        on_close: Callable[[], None],
        on_writable: Callable[[], None] | None = None,
        on_paused: Callable[[], None] | None = None,
    ) -> None:
        """`on_close`: the client went before its answer was complete; `on_paused`, `on_writable`: its socket is
        backed up, takes data again."""
        connection = self._connection
        connection.on_close, connection.on_writable, connection.on_paused = on_close, on_writable, on_paused

    def respond(self, status: int, headers: bytes, body: bytes) -> None:
        """A complete response in one write. `headers` are complete lines, each with its CRLF."""
        cycle = self._cycle
        if cycle.response_started or self.closed:
            return
        cycle.response_started = True
        close = b"" if cycle.keep_alive else b"connection: close\r\n"
        length = b"content-length: %d\r\n\r\n" % len(body)
        payload = b"" if cycle.scope["method"] == "HEAD" else body
        self._connection.transport.write(b"".join((STATUS_LINE[status], headers, close, length, payload)))
        self._complete()

    def start_stream(self, headers: bytes) -> None:
        """Begin a chunked event stream."""
        cycle = self._cycle
        if cycle.response_started or self.closed:
            return
        cycle.response_started = cycle.chunked_encoding = True
        close = b"" if cycle.keep_alive else b"connection: close\r\n"
        self._connection.transport.write(b"".join((_SSE_HEAD, headers, close, b"\r\n")))

    def write_chunk(self, data: bytes) -> None:
        """One piece of the stream, sent at once."""
        self._write(b"%x\r\n%b\r\n" % (len(data), data))

    def chunk_writer(
        self, prefix: bytes, suffix: bytes, encode: Callable[[str], bytes]
    ) -> Callable[[str], None]:
        """Sends `prefix`, an encoded text and `suffix` as one piece of the stream, at once."""

        # Defaults instead of a closure: one tuple to fetch for each token instead of a cell for each name.
        def say(
            text: str,
            base: int = len(prefix) + len(suffix),
            prefix: bytes = prefix,
            suffix: bytes = suffix,
            write: Callable[[bytes], None] = self._write,
        ) -> None:
            data = encode(text)
            write(b"%x\r\n%b%b%b\r\n" % (base + len(data), prefix, data, suffix))

        return say

    def end_stream(self, data: bytes = b"") -> None:
        """The last piece, if any, and the end of the stream."""
        if self.closed or self._cycle.response_complete:
            return
        tail = b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data) if data else b"0\r\n\r\n"
        self._connection.transport.write(tail)
        self._complete()

    def _complete(self) -> None:
        cycle = self._cycle
        cycle.response_complete = True
        cycle.message_event.set()
        if not cycle.keep_alive:
            self._connection.close_when_sent(cycle)
        cycle.on_response()
