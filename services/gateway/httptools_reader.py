"""From the bytes of one client to its requests: httptools' parser, and bounds on heads and on what is sent ahead.

Rules: half of a connection (httptools_connection.py is the other one, which decides what runs and what is answered).
Bounds: header bytes and number (trailers and chunk extensions too: what has no end is kept for one read), time to
send head and body (`deadline_s`, looked at by the server's sweep: no timers), requests sent ahead of their answers,
body bytes that nobody asked for yet.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections import deque
from typing import TYPE_CHECKING, cast

import httptools

from ..config import LimitsConfig
from .httptools_exchange import Exchange

if TYPE_CHECKING:
    from .httptools_connection import Connection

MAX_HEADER_BYTES = 32 * 1024
MAX_HEADERS = 100
MAX_PIPELINED = 100
LAST_CALL_S = 1.0
"""So long a new connection to a server that ends may take to bring its request."""
_NONE: dict[bytes, bytes] = {}


class Refused(Exception):
    """Raised in a parser callback: the request line or the headers are over a bound."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


class Reader(asyncio.Protocol):
    """`ahead` are requests that came before the one before them was answered."""

    __slots__ = (
        "_final", "_head_bytes", "_headers", "_limits", "_num_headers", "_parser", "_read_paused", "_refusal",
        "_unparsed", "_url", "ahead", "deadline_s", "latest", "loop", "resting", "running", "transport",
    )  # fmt: skip

    transport: asyncio.Transport

    def __init__(self, limits: LimitsConfig, loop: asyncio.AbstractEventLoop) -> None:
        self._limits, self.loop = limits, loop
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        # What a client sends behind a request that it said was its last is not read, but does not spoil that either.
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.running: Exchange | None = None
        self.latest: Exchange | None = None
        """Whose body is being read."""
        self.ahead: deque[Exchange] | None = None
        self._url, self._headers, self._head_bytes, self._num_headers = b"", _NONE, 0, 0
        self._unparsed = 0
        """Bytes since the parser last had something whole: it keeps a header, a trailer or a chunk's extension that has
        no end for as long as it comes."""
        self._refusal: Refused | None = None
        self._read_paused = self.resting = self._final = False
        self.deadline_s: float | None = loop.time() + limits.header_timeout_s

    @abstractmethod
    def begin(self, exchange: Exchange) -> None:
        """A head is complete, and no other request runs."""

    @abstractmethod
    def refuse(self, status: int, message: str, code: str) -> None:
        """Answer outside any request and close."""

    def data_received(self, data: bytes) -> None:
        if self._parser is None:
            return
        self._unparsed += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:  # nothing here speaks anything else: what follows is not read
            self._parser = None
            self.end_after_the_last()
        except httptools.HttpParserError:
            refusal = self._refusal or Refused(400, "this is not a valid HTTP request")
            self.refuse(refusal.status, refusal.message, "invalid_http")
        else:
            if self._unparsed > MAX_HEADER_BYTES:
                self._parser = None
                self.refuse(431, "the headers are too large", "invalid_http")

    def pause_reading(self) -> None:
        """Its client is not read from, for now."""
        if not self._read_paused:
            self._read_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Its client is read from, if it was not."""
        if self._read_paused:
            self._read_paused = False
            self.transport.resume_reading()

    def end_after_the_last(self) -> None:
        """Close once the requests that came are answered; a connection that is new, or in the middle of a head, may
        bring that one."""
        last = self.ahead[-1] if self.ahead else self.running
        if last is not None:
            last.keep_alive = False
        elif self.resting:
            self.transport.close()
        else:
            self._final, soon_s = True, self.loop.time() + LAST_CALL_S
            self.deadline_s = soon_s if self.deadline_s is None else min(self.deadline_s, soon_s)

    def rest(self) -> None:
        """Nothing is kept of the last request; the next one may take its time."""
        if self._final:
            self.transport.close()
        self.resting, self._headers, self.ahead = True, _NONE, None
        self.deadline_s = self.loop.time() + self._limits.idle_timeout_s

    def forget(self) -> None:
        """The connection is lost. An exchange knows it: neither would be free before the collector came round."""
        if self.latest is not None:
            self.latest.wake()
        self.running = self.latest = self.ahead = self._parser = None

    # the parser --------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self.ahead is not None and len(self.ahead) >= MAX_PIPELINED:
            self._refuse(429, "too many requests ahead of their answers")
        self._url, self._headers, self._head_bytes, self._num_headers = b"", {}, 0, 0
        self.resting = False
        self.deadline_s = self.loop.time() + self._limits.header_timeout_s

    def on_url(self, url: bytes) -> None:
        self._head_bytes += len(url)
        if self._head_bytes > MAX_HEADER_BYTES:
            self._refuse(414, "the request target is too long")
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._unparsed = 0
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes > MAX_HEADER_BYTES:
            self._refuse(431, "the headers are too large")
        self._num_headers += 1
        if self._num_headers > MAX_HEADERS:
            self._refuse(431, "too many headers")
        name = name.lower()
        if name == b"transfer-encoding" and value.strip().lower() != b"chunked":
            # RFC 9112 §6.1: the parser takes "gzip, chunked" and unpacks the second alone
            self._refuse(400, "of transfer codings only chunked is supported")
        self._headers[name] = value

    def on_headers_complete(self) -> None:
        parser, url, query = self._parser, self._url, b""
        assert parser is not None
        if url[:1] != b"/":
            url = httptools.parse_url(url).path or b""
        elif b"?" in url or b"#" in url:
            url, _, query = url.partition(b"#")[0].partition(b"?")
        keep_alive = parser.should_keep_alive() and parser.get_http_version() != "1.0" and not self._final
        method = parser.get_method().decode("ascii")
        exchange = Exchange(cast("Connection", self), method, url, self._headers, keep_alive)
        if query:
            exchange.query = query
        self._headers = {}  # trailers are not headers (RFC 9110 §6.5.1)
        self.latest = exchange
        self.deadline_s = self.loop.time() + self._limits.body_timeout_s
        if self.running is None:
            self.begin(exchange)
        else:
            self.pause_reading()
            if self.ahead is None:
                self.ahead = deque()
            self.ahead.append(exchange)

    def on_body(self, body: bytes) -> None:
        self._unparsed = 0
        exchange = self.latest
        if exchange is None or exchange.complete:
            return
        exchange.arrived(body)
        if exchange.ahead:
            self.pause_reading()

    def on_message_complete(self) -> None:
        self._unparsed = 0
        self.deadline_s = None
        exchange, self.latest = self.latest, None
        if exchange is not None:
            exchange.arrived(b"")
            if exchange.complete and self.running is None:
                self.rest()

    def _refuse(self, status: int, message: str) -> None:
        """From a callback of the parser, whose error the refusal then is."""
        self._refusal = Refused(status, message)
        raise self._refusal
