"""One request on a connection, and its response, written without an await.

Rules: the other half of uvicorn_server.py: keeps uvicorn's own cycle state right while it writes past it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from .outbox import Outbox, Write, writer

if TYPE_CHECKING:
    from .uvicorn_server import Connection

_SSE_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
    b"x-accel-buffering: no\r\ntransfer-encoding: chunked\r\n"
)


class _ChunkHeads(dict[int, bytes]):
    """The line before a chunk of so many bytes. Formatting costs more than the rest of an event does."""

    def __missing__(self, num_bytes: int) -> bytes:
        head = self[num_bytes] = b"%x\r\n" % num_bytes
        return head


_CHUNK_HEADS = _ChunkHeads()


class Exchange:
    """One request on a connection, and its response, written without an await. The app finds it in
    `scope["exchange"]`. Not the connection itself: a pipelining client has several requests on it."""

    __slots__ = ("_connection", "_cycle", "_flow", "_outbox", "_write")

    def __init__(self, connection: Connection, cycle: RequestResponseCycle) -> None:
        self._connection, self._cycle = connection, cycle
        self._flow, self._outbox = connection.flow, connection.outbox
        self._write: Write = connection.transport.write

    @property
    def closed(self) -> bool:
        return self._connection.transport.is_closing()

    @property
    def left(self) -> bool:
        """The client went while it was watched, or nobody watches it."""
        return self._connection.on_close is None

    def flush(self) -> None:
        """What was said so far leaves now: it is counted, and the connection may be closed next."""
        self._outbox.flush()

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
        """Begin a chunked event stream. From here to its end everything goes through the outbox."""
        cycle = self._cycle
        if cycle.response_started or self.closed:
            return
        cycle.response_started = cycle.chunked_encoding = True
        close = b"" if cycle.keep_alive else b"connection: close\r\n"
        self._write = writer(self._connection.transport)
        self._outbox.put(self._write, b"".join((_SSE_HEAD, headers, close, b"\r\n")))

    def write_chunk(self, data: bytes) -> None:
        """One piece of the stream, sent with this turn of the event loop."""
        self._outbox.put(self._write, b"%x\r\n%b\r\n" % (len(data), data))

    def chunk_writer(
        self, prefix: bytes, suffix: bytes, pieces: Mapping[int, bytes]
    ) -> Callable[[int], None]:
        """Sends `prefix`, the piece of a token and `suffix` as one piece of the stream. Raises KeyError, and sends
        nothing, for a token without one."""

        # Defaults instead of a closure: one tuple to fetch for each token instead of a cell for each name.
        def say(
            token_id: int,
            pieces: Mapping[int, bytes] = pieces,
            around: int = len(prefix) + len(suffix),
            prefix: bytes = prefix,
            suffix: bytes = suffix + b"\r\n",
            heads: Mapping[int, bytes] = _CHUNK_HEADS,
            outbox: Outbox = self._outbox,
            waiting: list[tuple[Write, bytes]] = self._outbox.waiting,
            write: Write = self._write,
        ) -> None:
            piece = pieces[token_id]
            if not waiting:
                outbox.due()
            waiting.append((write, heads[around + len(piece)] + prefix + piece + suffix))

        return say

    def end_stream(self, data: bytes = b"") -> None:
        """The last piece, if any, and the end of the stream."""
        if self.closed or self._cycle.response_complete:
            return
        tail = b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data) if data else b"0\r\n\r\n"
        self._outbox.put(self._write, tail)
        self._outbox.flush()  # before the connection may be closed, or answers the next request
        self._complete()

    def _complete(self) -> None:
        cycle = self._cycle
        cycle.response_complete = True
        cycle.message_event.set()
        if not cycle.keep_alive:
            self._connection.close_when_sent(cycle)
        cycle.on_response()
