"""Reads one OpenAI-style answer as it comes and says what its user saw. Strict: an odd answer is a failed
one.

Rules: pure; events and times in, an Answered out. Knows no HTTP client.
"""

from __future__ import annotations

import msgspec

from ..slo import Answered


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    text: str | None = None
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    completion_tokens: int


class _Error(msgspec.Struct):
    message: str = ""
    code: str | None = None
    type: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: _Error | None = None


_DECODE = msgspec.json.Decoder(_Chunk).decode


class AnswerReader:
    """One streamed answer. Times are seconds of one clock; `due_s` is when the request was to be sent."""

    def __init__(self, due_s: float) -> None:
        self._due_s = due_s
        self._first_s = self._last_s = 0.0
        self._gaps_ms: list[float] = []
        self._finish = ""
        self._num_pieces = 0
        self.error = ""
        self.num_tokens: int | None = None
        self.ended = False

    def piece(self, text: str, finish: str, now_s: float) -> None:
        """Text that became visible (maybe none), and why the answer ended, if it did."""
        if self.ended or self._finish:
            self.fail("text after the end")
        if finish:
            self._finish = finish
        if text:
            self._num_pieces += 1
            if self._first_s:
                self._gaps_ms.append((now_s - self._last_s) * 1e3)
            else:
                self._first_s = now_s
            self._last_s = now_s

    def fail(self, why: str) -> None:
        """Something is wrong; the first thing counts."""
        self.error = self.error or why[:200]

    def answered(self, now_s: float) -> Answered:
        """The stream is closed."""
        if not self.ended:
            self.fail("the stream ended without its last message")
        elif not self._finish:
            self.fail("no finish_reason")
        num_tokens = self.num_tokens if self.num_tokens is not None else self._num_pieces
        ttft_ms = ((self._first_s or now_s) - self._due_s) * 1e3
        return Answered(ttft_ms, (now_s - self._due_s) * 1e3, tuple(self._gaps_ms), num_tokens, self.error)


class SseReader(AnswerReader):
    """An answer as OpenAI's server-sent events."""

    def event(self, event: bytes, now_s: float) -> None:
        """One event."""
        for line in event.splitlines():
            if line.startswith(b"data:"):
                self._data(line[5:].strip(), now_s)
            elif line and not line.startswith(b":"):
                self.fail(f"odd line {line[:40]!r}")

    def _data(self, data: bytes, now_s: float) -> None:
        if data == b"[DONE]":
            self.ended = True
            return
        try:
            chunk = _DECODE(data)
        except msgspec.MsgspecError as error:
            self.fail(f"odd chunk: {error}")
            return
        if chunk.error is not None:
            self.fail(f"{chunk.error.code or chunk.error.type}: {chunk.error.message}")
        if chunk.usage is not None:
            self.num_tokens = chunk.usage.completion_tokens
        for choice in chunk.choices:
            text = choice.delta.content if choice.delta is not None else choice.text
            self.piece(text or "", choice.finish_reason or "", now_s)


def refused(status: int, body: bytes, ms: float) -> Answered:
    """A request that was answered with an error status."""
    try:
        error = _DECODE(body).error
    except msgspec.MsgspecError:
        error = None
    code = (error.code or error.type) if error is not None else "no OpenAI error body"
    return Answered(ms, ms, error=f"{status} {code}")
