"""What a remote OpenAI-compatible server says, read with suspicion. Pure: bytes in, pieces of text out.

Rules: every buffer is bounded, every line is checked, and whatever is no event stream of chat.completion.chunk is a
RemoteFault with one of few names. Nothing that the remote wrote stands in an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import msgspec

MAX_LINE_BYTES = 64 * 1024
"""Of one event. Ours are below 1 KB; a line without an end is no reason to hold memory."""

Fault = Literal[
    "connect",
    "tls",
    "silent",
    "status",
    "denied",
    "busy",
    "refused",
    "garbage",
    "cut",
    "too_long",
    "error",
    "key",
]
FATAL: frozenset[Fault] = frozenset(("connect", "tls", "silent", "denied", "busy", "key"))
"""After these nobody else need try for a while."""
OF_THE_REQUEST: frozenset[Fault] = frozenset(("refused",))
"""These say nothing about the remote's health."""


class RemoteFault(Exception):
    """The remote did not answer as it should."""

    def __init__(self, kind: Fault) -> None:
        super().__init__(kind)
        self.kind: Fault = kind


class Piece(NamedTuple):
    """A text, and on the last one why it ends."""

    text: str
    finish: Literal["stop", "length", "content_filter"] | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    tool_calls: Any = None
    function_call: Any = None


class _Choice(msgspec.Struct):
    delta: _Delta = msgspec.field(default_factory=_Delta)
    index: int = 0
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = msgspec.field(default_factory=list[_Choice])
    error: Any = None


_CHUNK = msgspec.json.Decoder(_Chunk)
_FIELDS = (b"event:", b"id:", b"retry:")
_FINISH: dict[str, Literal["stop", "length", "content_filter"]] = {
    "stop": "stop",
    "length": "length",
    "content_filter": "content_filter",
}


def status_fault(status: int) -> Fault | None:
    """What an HTTP status other than 200 means; None for 200."""
    if status == 200:
        return None
    if status in (401, 403, 407):
        return "denied"
    if status in (429, 503):
        return "busy"
    return "refused" if status in (400, 404, 413, 422) else "status"


class EventReader:
    """One stream. `done` once its answer is complete."""

    def __init__(self) -> None:
        self._line = b""
        self.done = False

    def feed(self, data: bytes) -> Iterator[Piece]:
        """What became readable, up to where it goes wrong: however the bytes are cut, the pieces are the same. Raises
        RemoteFault (garbage, too_long, error, cut: [DONE] before a finish reason)."""
        *lines, self._line = (self._line + data).split(b"\n")
        for line in lines:
            if self.done:
                return
            if len(line) > MAX_LINE_BYTES:
                raise RemoteFault("too_long")
            if (piece := self._read(line.strip())) is not None:
                yield piece
        if len(self._line) > MAX_LINE_BYTES and not self.done:
            raise RemoteFault("too_long")

    def _read(self, line: bytes) -> Piece | None:
        if not line or line.startswith(b":") or line.startswith(_FIELDS):
            return None
        if not line.startswith(b"data:"):
            raise RemoteFault("garbage")
        payload = line[5:].strip()
        if payload == b"[DONE]":
            raise RemoteFault("cut")
        try:
            chunk = _CHUNK.decode(payload)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            raise RemoteFault("garbage") from None
        if chunk.error is not None:
            raise RemoteFault("error")
        if not chunk.choices:
            return None
        choice = chunk.choices[0]
        if len(chunk.choices) > 1 or choice.index or choice.delta.tool_calls or choice.delta.function_call:
            raise RemoteFault("garbage")  # nobody asked for that
        finish = None
        if choice.finish_reason is not None:
            finish = _FINISH.get(choice.finish_reason)
            if finish is None:
                raise RemoteFault("garbage")
            self.done = True
        text = (choice.delta.content or "") + (choice.delta.refusal or "")
        return Piece(text, finish) if text or finish else None
