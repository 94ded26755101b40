"""The client's side of one gRPC answer: one message, or a stream of events.

Rules: implements services.answer.Responder; encodes with services/api, never awaits (`write_to`, which the
handler awaits, does). While a write waits for the client's flow-control window deltas are merged, never
delayed by a timer; what waits is counted in `buffered_bytes`, which the pipeline bounds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ..answer import AnswerHead, AnswerTail, Delta
from ..api import event_ids, grpc_encode
from ..errors import MeshError
from ..request import InferenceRequest
from .http_responders import merge

_DELTA_BYTES = 64
"""What a waiting delta costs beside its text."""


class UnaryResponder:
    """Collects a whole answer: afterwards either `body` or `error` is set."""

    streams = False
    buffered_bytes = 0

    def __init__(self) -> None:
        self.served_by = ""
        self.body = b""
        self.error: MeshError | None = None

    def expect(self, request: InferenceRequest) -> None:
        """The request that is to be answered."""
        self._answer = grpc_encode.WholeAnswer(request)

    def begin(self, head: AnswerHead) -> None:
        self.served_by = head.served_by
        self._answer.head(head)

    def delta(self, delta: Delta) -> None:
        self._answer.delta(delta)

    def end(self, tail: AnswerTail) -> None:
        self.body = self._answer.tail(tail)

    def fail(self, error: MeshError) -> None:
        self.error = error


class StreamResponder:
    """A stream of StreamEvents. `write_to` ends when the answer does; then it is `complete`, or `error` is
    set, or the work was cancelled from inside."""

    streams = True

    def __init__(self) -> None:
        self.error: MeshError | None = None
        self.served_by = ""
        self._ready: list[bytes] = []
        self._waiting: list[Delta] = []
        self._writing_bytes = 0
        self._waiting_bytes = 0
        self._closed = False
        self.complete = False
        self._wakeup: asyncio.Future[None] | None = None
        self._request: InferenceRequest | None = None
        self._cursor: event_ids.Cursor | None = None
        self._id = b""

    def expect(self, request: InferenceRequest) -> None:
        """The request that is to be answered."""
        self._request = request

    def begin(self, head: AnswerHead) -> None:
        self.served_by = head.served_by
        if head.resumable and (request := self._request) is not None:
            self._id = head.request_id.encode("ascii", "replace") + b"/"
            self._cursor = event_ids.Cursor(request.num_choices)
            if request.last_event_id:
                self._cursor = event_ids.parse(request.last_event_id, request.num_choices)
        self._push(grpc_encode.event_begin(head))

    def _event(self, delta: Delta) -> bytes:
        event = grpc_encode.event_delta(delta)
        if self._cursor is None:
            return event
        self._cursor.advance(delta)
        return grpc_encode.with_id(event, self._id + self._cursor.text())

    def delta(self, delta: Delta) -> None:
        if self._writing_bytes:
            self._waiting.append(delta)
            self._waiting_bytes += delta.num_chars + _DELTA_BYTES
        else:
            self._push(self._event(delta))

    def end(self, tail: AnswerTail) -> None:
        self._merge()
        self._push(grpc_encode.event_end(tail))
        self.complete = True

    def fail(self, error: MeshError) -> None:
        self.error = error
        self._merge()
        self._wake()

    def close(self, _work: object = None) -> None:
        """Nothing more will come."""
        self._closed = True
        self._wake()

    @property
    def buffered_bytes(self) -> int:
        return self._writing_bytes + self._waiting_bytes

    async def write_to(self, write: Callable[[bytes], Awaitable[None]]) -> None:
        """Write every event in order; returns when all are written and nothing more will come."""
        while True:
            self._merge()
            events, self._ready = self._ready, []
            if not events:
                if self._closed:
                    return
                self._wakeup = asyncio.get_running_loop().create_future()
                await self._wakeup
                continue
            self._waiting_bytes = 0
            self._writing_bytes = sum(map(len, events))
            for event in events:
                await write(event)
                self._writing_bytes -= len(event)

    def _merge(self) -> None:
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            self._ready.extend(map(self._event, merge(waiting)))

    def _push(self, event: bytes) -> None:
        self._ready.append(event)
        self._waiting_bytes += len(event)
        self._wake()

    def _wake(self) -> None:
        if self._wakeup is not None and not self._wakeup.done():
            self._wakeup.set_result(None)
