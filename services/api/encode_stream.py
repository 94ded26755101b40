"""Server-sent events of chats and text completions: static bytes around the text of each delta.

Rules: pure, synchronous; one object per answer. A plain text delta costs one JSON string and one
concatenation (everything else of the event was laid out at `head`); whatever is rarer is built as a
dictionary. Event ids (event_ids.py) are given where the answer is journalled: they are what a client names to
resume a cut stream. With `resume_after`, the events that the client has already are left out, and only those:
which deltas it has is the caller's business.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

from ..answer import AnswerHead, AnswerTail, Delta
from ..errors import MeshError
from . import event_ids
from .encode_parts import (
    DONE,
    chat_logprobs,
    confidence_fields,
    dumps,
    error_fields,
    legacy_logprobs,
    tool_call_pieces,
    usage_fields,
)


class EventEncoder(Protocol):
    """An answer as events: `head`, then `delta`s, then `tail`; or `error` at any point, last. `had` and `around` as
    StreamEncoder says."""

    def head(self, head: AnswerHead) -> bytes: ...
    def delta(self, delta: Delta) -> bytes: ...
    def around(self, choice: int) -> tuple[bytes, bytes] | None: ...
    def had(self, delta: Delta) -> None: ...
    def tail(self, tail: AnswerTail) -> bytes: ...
    def error(self, error: MeshError) -> bytes: ...


class StreamEncoder(ABC):
    """Common to both shapes. `head`, then `delta`s, then `tail`; or `error` at any point, last."""

    OBJECT = ""
    ID = ""
    TEXT = b""
    """What stands between a choice's index and its text."""
    TEXT_END = b""
    """What stands behind the text of a delta that is nothing but text."""

    def __init__(
        self,
        num_choices: int,
        *,
        include_usage: bool = False,
        confidence: bool = False,
        resume_after: str = "",
    ) -> None:
        self._num_choices = num_choices
        self._include_usage = include_usage
        self._confidence = confidence
        self._resume_after = resume_after
        self._cursor: event_ids.Cursor | None = None
        self._only: event_ids.Cursor | None = None
        self._id = b""
        self._start = b""
        self._end = b',"usage":null}\n\n' if include_usage else b"}\n\n"
        self._text_end = b""
        self._prefixes: list[bytes] = []

    def head(self, head: AnswerHead) -> bytes:
        """Lay out what never changes; returns the events that open the stream."""
        opened = 0
        if head.resumable:
            self._id = b"id: %b/" % head.request_id.encode("ascii", "replace")
            self._cursor = event_ids.Cursor(self._num_choices)
            if self._resume_after:
                self._cursor = event_ids.parse(self._resume_after, self._num_choices)
                opened = self._cursor.opened
            self._only = self._cursor if self._num_choices == 1 else None
        self._start = b'data: {"id":%b,"object":"%b","created":%d,"model":%b,"choices":[' % (
            dumps(self.ID + head.request_id),
            self.OBJECT.encode(),
            head.created,
            dumps(head.model),
        )
        self._prefixes = [
            b'%b{"index":%d,%b' % (self._start, choice, self.TEXT) for choice in range(self._num_choices)
        ]
        self._text_end = self.TEXT_END + self._end
        return b"".join([self._open(data) for data in self._opening()[opened:]])

    def delta(self, delta: Delta) -> bytes:
        """The event of one delta."""
        if delta.finish is None and delta.logprobs is None and not delta.tool_calls and not delta.reasoning:
            text = delta.text
            if self._only is not None and not self._only.calls[0]:  # ids of one choice, as Cursor says them
                count, check = self._only.count(delta.num_tokens, text)
                return b"%b%d-%x\n%b%b%b" % (
                    self._id, count, check, self._prefixes[0], dumps(text), self._text_end
                )  # fmt: skip
            data = self._prefixes[delta.choice] + dumps(text) + self._text_end
        else:
            data = self._choice(self._rich(delta))
        if (cursor := self._cursor) is None:
            return data
        cursor.advance(delta)
        return b"%b%b\n%b" % (self._id, cursor.text(), data)

    def around(self, choice: int) -> tuple[bytes, bytes] | None:
        """What stands before and behind the JSON string of a delta that is nothing but text; None where events differ
        in more than that. After `head`."""
        return None if self._cursor is not None else (self._prefixes[choice], self._text_end)

    def had(self, delta: Delta) -> None:  # noqa: B027  # most kinds of answer have nothing to count
        """The client has this delta already: it is only counted. Before any other delta."""

    def tail(self, tail: AnswerTail) -> bytes:
        """What ends the stream: usage and confidence when asked for, and [DONE]."""
        extra = confidence_fields(tail) if self._confidence else {}
        cursor = self._cursor
        if (not self._include_usage and not extra) or (cursor is not None and cursor.ended):
            return DONE
        usage = usage_fields(tail.usage) if self._include_usage else None
        fields = dumps({"usage": usage, **extra} if self._include_usage else extra)
        data = b"%b],%b\n\n" % (self._start, fields[1:])
        if cursor is not None:
            cursor.ended = True
            data = self._identified(data, cursor)
        return data + DONE

    def error(self, error: MeshError) -> bytes:
        """OpenAI's error object as the last event; no [DONE], so that nobody takes the answer for a whole
        one."""
        return b"data: %b\n\n" % dumps(error_fields(error))

    def _opening(self) -> list[bytes]:
        return []

    @abstractmethod
    def _rich(self, delta: Delta) -> dict[str, object]: ...

    def _choice(self, choice: dict[str, object]) -> bytes:
        return b"%b%b]%b" % (self._start, dumps(choice), self._end)

    def _open(self, data: bytes) -> bytes:
        if self._cursor is None:
            return data
        self._cursor.opened += 1
        return self._identified(data, self._cursor)

    def _identified(self, data: bytes, cursor: event_ids.Cursor) -> bytes:
        return b"%b%b\n%b" % (self._id, cursor.text(), data)


class ChatStreamEncoder(StreamEncoder):
    """chat.completion.chunk"""

    OBJECT = "chat.completion.chunk"
    ID = "chatcmpl-"
    TEXT = b'"delta":{"content":'
    TEXT_END = b'},"logprobs":null,"finish_reason":null}]'

    def _opening(self) -> list[bytes]:
        """OpenAI opens each choice with its role."""
        return [
            b'%b{"index":%d,"delta":{"role":"assistant","content":""%b'
            % (self._start, choice, self._text_end)
            for choice in range(self._num_choices)
        ]

    def _rich(self, delta: Delta) -> dict[str, object]:
        fields: dict[str, object] = {}
        if delta.reasoning:
            fields["reasoning_content"] = delta.reasoning
        if delta.text:
            fields["content"] = delta.text
        if delta.tool_calls:
            fields["tool_calls"] = tool_call_pieces(delta.tool_calls)
        logprobs = None if delta.logprobs is None else chat_logprobs(delta.logprobs)
        return {"index": delta.choice, "delta": fields, "logprobs": logprobs, "finish_reason": delta.finish}


class CompletionStreamEncoder(StreamEncoder):
    """text_completion, streamed."""

    OBJECT = "text_completion"
    ID = "cmpl-"
    TEXT = b'"text":'
    TEXT_END = b',"logprobs":null,"finish_reason":null}]'

    def __init__(
        self,
        num_choices: int,
        *,
        include_usage: bool = False,
        confidence: bool = False,
        resume_after: str = "",
    ) -> None:
        super().__init__(
            num_choices, include_usage=include_usage, confidence=confidence, resume_after=resume_after
        )
        self._offsets = [0] * num_choices

    def had(self, delta: Delta) -> None:
        if delta.logprobs is not None:
            self._rich(delta)

    def _rich(self, delta: Delta) -> dict[str, object]:
        logprobs: dict[str, object] | None = None
        if delta.logprobs is not None:
            logprobs, self._offsets[delta.choice] = legacy_logprobs(
                delta.logprobs, self._offsets[delta.choice]
            )
        return {
            "index": delta.choice,
            "text": delta.text,
            "logprobs": logprobs,
            "finish_reason": delta.finish,
        }
