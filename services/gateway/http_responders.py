"""The client's side of one HTTP answer: an event stream or one JSON body.

Rules: implements services.answer.Responder on a Connection; encodes with services/api, writes with this turn, never
awaits. While the client's socket is backed up deltas are merged (fewer, larger events), never delayed by a timer;
what waits is counted in `buffered_bytes`, which the pipeline bounds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from ..answer import AllowanceLeft, AnswerHead, AnswerTail, Delta, joined_calls
from ..api.encode import EventEncoder, UnaryEncoder, error_response
from ..errors import MeshError
from ..text.json_pieces import JsonPieces


class Wire(Protocol):
    """What a responder needs of a connection (httptools_exchange.Exchange)."""

    @property
    def closed(self) -> bool: ...
    @property
    def write_paused(self) -> bool: ...
    @property
    def buffered_bytes(self) -> int: ...
    def respond(self, status: int, headers: bytes, body: bytes) -> None: ...
    def start_stream(self, headers: bytes) -> None: ...
    def write_chunk(self, data: bytes) -> None: ...
    def chunk_writer(self, prefix: bytes, suffix: bytes, pieces: JsonPieces) -> Callable[[int], None]: ...
    def end_stream(self, data: bytes = b"") -> None: ...


DELTA_BYTES = 64
"""What a waiting delta costs beside its text."""
JSON = b"content-type: application/json\r\n"


def head_lines(request_id: str, cache: str = "") -> bytes:
    """Response headers that every answer carries."""
    lines = b"x-request-id: %b\r\n" % request_id.encode("ascii", "replace")
    return lines + b"x-cache: %b\r\n" % cache.encode() if cache else lines


def answer_lines(head: AnswerHead) -> bytes:
    """Response headers of an answer."""
    lines = head_lines(head.request_id, head.cache)
    if head.cache_kind:
        lines += b"x-cache-kind: %b\r\n" % head.cache_kind.encode()
    if head.resumable is not None:
        lines += b"x-resumable: true\r\n" if head.resumable else b"x-resumable: false\r\n"
    if head.allowance is not None:
        lines += allowance_lines(head.allowance)
    if head.aigc:
        lines += b"x-aigc: %b\r\n" % head.aigc.encode()
    if head.served_by:
        lines += b"x-served-by: %b\r\n" % head.served_by.encode()
    if head.passages:
        shown = ",".join([f"{one.document}:{one.start}-{one.end}" for one in head.passages])
        lines += b"x-passages: %b\r\n" % shown.encode()
    return lines + b"idempotent-replayed: true\r\n" if head.replayed else lines


def allowance_lines(left: AllowanceLeft) -> bytes:
    """What the key has left, in OpenAI's words."""
    lines = b""
    for what, limit, remaining in (
        (b"requests", left.requests_per_minute, left.requests),
        (b"tokens", left.tokens_per_minute, left.tokens),
    ):
        if limit:
            lines += b"x-ratelimit-limit-%b: %d\r\n" % (what, limit)
            lines += b"x-ratelimit-remaining-%b: %d\r\n" % (what, remaining)
    return lines


def respond_error(wire: Wire, error: MeshError, request_id: str) -> None:
    """OpenAI's error body, with Retry-After where it helps."""
    status, headers, body = error_response(error)
    wire.respond(status, head_lines(request_id) + headers, body)


def merge(deltas: list[Delta]) -> list[Delta]:
    """One delta per choice, in order of first appearance, with the same text, tokens and log-probabilities."""
    merged: dict[int, Delta] = {}
    for delta in deltas:
        known = merged.get(delta.choice)
        if known is None:
            merged[delta.choice] = delta
            continue
        logprobs = known.logprobs
        if delta.logprobs is not None:
            logprobs = (*(known.logprobs or ()), *delta.logprobs)
        merged[delta.choice] = msgspec.structs.replace(
            known,
            text=known.text + delta.text,
            finish=delta.finish or known.finish,
            logprobs=logprobs,
            tool_calls=joined_calls(known.tool_calls + delta.tool_calls),
            num_tokens=known.num_tokens + delta.num_tokens,
            reasoning=known.reasoning + delta.reasoning,
        )
    return list(merged.values())


class StreamResponder:
    """Server-sent events. `buffered_bytes` is brought up to date while the client's socket is backed up, else 0."""

    __slots__ = ("_encode", "_encoder", "_long_way", "_request_id", "_started", "_waiting", "_waiting_bytes", "_wire",
                 "_write", "buffered_bytes")  # fmt: skip

    def __init__(self, wire: Wire, encoder: EventEncoder, request_id: str) -> None:
        self._wire, self._encoder, self._request_id = wire, encoder, request_id
        self._encode, self._write = encoder.delta, wire.write_chunk
        self._started = False
        self._long_way: Callable[[], None] | None = None
        self._waiting: list[Delta] = []
        self._waiting_bytes = 0
        self.buffered_bytes = 0

    def begin(self, head: AnswerHead) -> None:
        self._started = True
        self._wire.start_stream(answer_lines(head))
        if first := self._encoder.head(head):
            self._write(first)

    def delta(self, delta: Delta) -> None:
        if self._wire.write_paused:
            self._waiting.append(delta)
            self._waiting_bytes += delta.num_chars + DELTA_BYTES
            self.buffered_bytes = self._wire.buffered_bytes + self._waiting_bytes
            return
        if self._waiting:
            self.writable()
        self._write(self._encode(delta))

    def plain(
        self, choice: int, pieces: JsonPieces, long_way: Callable[[], None]
    ) -> Callable[[int], None] | None:
        """Sends one token that has a piece (text as JSON); KeyError for one that has none. None while that cannot be;
        `long_way` is called when it no longer can."""
        around = self._encoder.around(choice)
        if around is None or self._waiting or self._wire.write_paused:
            return None
        self._long_way = long_way
        prefix, suffix = around
        return self._wire.chunk_writer(prefix, suffix, pieces)

    def paused(self) -> None:
        """The client's socket is backed up."""
        if self._long_way is not None:
            self._long_way()
            self._long_way = None

    def had(self, delta: Delta) -> None:
        """The client has this delta from an earlier connection."""
        self._encoder.had(delta)

    def writable(self) -> None:
        """The client took what was buffered: send what waited, merged."""
        waiting, self._waiting = self._waiting, []
        self._waiting_bytes = self.buffered_bytes = 0
        if waiting:
            self._write(b"".join(map(self._encode, merge(waiting))))

    def end(self, tail: AnswerTail) -> None:
        self._long_way = None
        if self._waiting:
            self.writable()
        self._wire.end_stream(self._encoder.tail(tail))

    def fail(self, error: MeshError) -> None:
        self._long_way = None
        if not self._started:
            respond_error(self._wire, error, self._request_id)
            return
        if self._waiting:
            self.writable()
        self._wire.end_stream(self._encoder.error(error))


class UnaryResponder:
    """One JSON body once everything is there."""

    buffered_bytes = 0

    def __init__(self, wire: Wire, encoder: UnaryEncoder, request_id: str) -> None:
        self._wire, self._encoder, self._request_id = wire, encoder, request_id
        self._head: AnswerHead | None = None

    def begin(self, head: AnswerHead) -> None:
        self._head = head
        self._encoder.head(head)

    def delta(self, delta: Delta) -> None:
        self._encoder.delta(delta)

    def end(self, tail: AnswerTail) -> None:
        assert self._head is not None
        headers = JSON + answer_lines(self._head)
        self._wire.respond(200, headers, self._encoder.tail(tail))

    def fail(self, error: MeshError) -> None:
        respond_error(self._wire, error, self._request_id)
