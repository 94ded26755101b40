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
        self._finish = self._error = ""
        self._num_tokens: int | None = None
        self._num_chunks = 0
        self._done = False

    def event(self, event: bytes, now_s: float) -> None:
        """One server-sent event, its blank line left out."""
        for line in event.splitlines():
            if line.startswith(b"data:"):
                self._data(line[5:].strip(), now_s)
            elif line and not line.startswith(b":"):
                self._error = self._error or f"odd line {line[:40]!r}"

    def answered(self, now_s: float) -> Answered:
        """The stream ended."""
        error = self._error or self._missing()
        num_tokens = self._num_tokens if self._num_tokens is not None else self._num_chunks
        first_s = self._first_s or now_s
        return Answered(
            (first_s - self._due_s) * 1e3,
            (now_s - self._due_s) * 1e3,
            tuple(self._gaps_ms),
            num_tokens,
            error,
        )

    def _data(self, data: bytes, now_s: float) -> None:
        if data == b"[DONE]":
            self._done = True
            return
        try:
            chunk = _DECODE(data)
        except msgspec.MsgspecError as error:
            self._error = self._error or f"odd chunk: {error}"
            return
        if chunk.error is not None:
            self._error = (
                self._error or f"{chunk.error.code or chunk.error.type}: {chunk.error.message}"[:200]
            )
        if chunk.usage is not None:
            self._num_tokens = chunk.usage.completion_tokens
        for choice in chunk.choices:
            self._choice(choice, now_s)

    def _choice(self, choice: _Choice, now_s: float) -> None:
        if self._done or self._finish:
            self._error = self._error or "text after the end"
        if choice.finish_reason:
            self._finish = choice.finish_reason
        if choice.delta.content if choice.delta is not None else choice.text:
            self._num_chunks += 1
            if self._first_s:
                self._gaps_ms.append((now_s - self._last_s) * 1e3)
            else:
                self._first_s = now_s
            self._last_s = now_s

    def _missing(self) -> str:
        if not self._done:
            return "the stream ended without [DONE]"
        return "" if self._finish else "no finish_reason"


def refused(status: int, body: bytes, ms: float) -> Answered:
    """A request that was answered with an error status."""
    try:
        error = _DECODE(body).error
    except msgspec.MsgspecError:
        error = None
    code = (error.code or error.type) if error is not None else "no OpenAI error body"
    return Answered(ms, ms, error=f"{status} {code}")
