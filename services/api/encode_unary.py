"""Whole answers in one JSON body: chat.completion, text_completion, and /generate's {response}.

Rules: pure, synchronous; one object per answer. Deltas are only collected; everything is encoded once, at
`tail`.
"""

from __future__ import annotations

from typing import Protocol

from ..answer import AnswerHead, AnswerTail, Delta, TokenText, ToolCallDelta
from .encode_parts import (
    chat_logprobs,
    confidence_fields,
    dumps,
    legacy_logprobs,
    tool_call_fields,
    usage_fields,
)


class UnaryEncoder(Protocol):
    """`head`, then `delta`s, then `tail`, which returns the body."""

    def head(self, head: AnswerHead) -> None: ...
    def delta(self, delta: Delta) -> None: ...
    def tail(self, tail: AnswerTail) -> bytes: ...


class Collected:
    """What arrived of one choice."""

    __slots__ = ("finish", "logprobs", "reasonings", "texts", "tool_calls")

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.reasonings: list[str] = []
        self.finish: str | None = None
        self.logprobs: list[TokenText] | None = None
        self.tool_calls: list[ToolCallDelta] | None = None

    def add(self, delta: Delta) -> None:
        """Append one delta."""
        if delta.text:
            self.texts.append(delta.text)
        if delta.reasoning:
            self.reasonings.append(delta.reasoning)
        if delta.finish is not None:
            self.finish = delta.finish
        if delta.logprobs is not None:
            self.logprobs = [*(self.logprobs or ()), *delta.logprobs]
        if delta.tool_calls:
            self.tool_calls = self.tool_calls or []
            self.tool_calls += delta.tool_calls

    @property
    def text(self) -> str:
        return "".join(self.texts)

    @property
    def reasoning(self) -> str:
        return "".join(self.reasonings)


class Collector:
    """Gathers the deltas of every choice, for any whole answer (gRPC's too)."""

    def __init__(self, num_choices: int) -> None:
        self.choices = [Collected() for _ in range(num_choices)]
        self.answer: AnswerHead | None = None

    def head(self, head: AnswerHead) -> None:
        """Known before the first token."""
        self.answer = head

    def delta(self, delta: Delta) -> None:
        """One more piece of a choice."""
        self.choices[delta.choice].add(delta)


class ChatUnaryEncoder(Collector):
    """chat.completion"""

    def tail(self, tail: AnswerTail) -> bytes:
        """The body."""
        choices: list[dict[str, object]] = [
            {
                "index": index,
                "message": _message(choice),
                "logprobs": None if choice.logprobs is None else chat_logprobs(choice.logprobs),
                "finish_reason": choice.finish or "stop",
            }
            for index, choice in enumerate(self.choices)
        ]
        return _body("chatcmpl-", "chat.completion", self.answer, choices, tail)


class CompletionUnaryEncoder(Collector):
    """text_completion"""

    def tail(self, tail: AnswerTail) -> bytes:
        """The body."""
        choices: list[dict[str, object]] = [
            {
                "index": index,
                "text": choice.text,
                "logprobs": None if choice.logprobs is None else legacy_logprobs(choice.logprobs, 0)[0],
                "finish_reason": choice.finish or "stop",
            }
            for index, choice in enumerate(self.choices)
        ]
        return _body("cmpl-", "text_completion", self.answer, choices, tail)


class GenerateUnaryEncoder(Collector):
    """{"response": text}, nothing else."""

    def tail(self, tail: AnswerTail) -> bytes:
        """The body."""
        return dumps({"response": self.choices[0].text})


def _message(choice: Collected) -> dict[str, object]:
    message: dict[str, object] = {"role": "assistant", "content": choice.text, "refusal": None}
    if choice.reasonings:
        message["reasoning_content"] = choice.reasoning
    if choice.tool_calls:
        message["content"] = choice.text or None
        message["tool_calls"] = tool_call_fields(choice.tool_calls)
    return message


def _body(
    prefix: str, kind: str, head: AnswerHead | None, choices: list[dict[str, object]], tail: AnswerTail
) -> bytes:
    assert head is not None, "head comes before tail"
    return dumps(
        {
            "id": prefix + head.request_id,
            "object": kind,
            "created": head.created,
            "model": head.model,
            "choices": choices,
            "usage": usage_fields(tail.usage),
            **confidence_fields(tail),
        }
    )
