"""Pieces of JSON that several wire shapes share: usage, log-probabilities, tool calls, error objects, SSE
frames.

Rules: pure; everything returns bytes or what msgspec encodes. Nothing here knows which shape it becomes part
of.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from ..answer import AnswerTail, TokenText, ToolCallDelta
from ..errors import MeshError
from ..request import Usage
from .status import STATUS

dumps = msgspec.json.Encoder().encode
"""Any value → JSON. 0.16 µs for a short text; the fastest of the encoders tried (docs/api.md)."""

MIN_LOGPROB = -9999.0
"""OpenAI's word for minus infinity, which JSON has not."""

DONE = b"data: [DONE]\n\n"


def usage_fields(usage: Usage) -> dict[str, object]:
    """OpenAI's `usage`."""
    fields: dict[str, object] = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }
    if usage.reasoning_tokens:
        fields["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
    return fields


def confidence_fields(tail: AnswerTail) -> dict[str, object]:
    """Our one extra field of an answer: 0–1 per choice, when asked for."""
    return {} if tail.confidence is None else {"confidence": tail.confidence}


def error_fields(error: MeshError) -> dict[str, object]:
    """OpenAI's error object."""
    status = STATUS[error.reason]
    param = error.param if status.http != 405 else None  # there it is what the Allow header says
    return {"error": {"message": error.message, "type": status.kind, "param": param, "code": status.code}}


def chat_logprobs(tokens: Iterable[TokenText]) -> dict[str, object]:
    """`choices[].logprobs` of a chat."""
    return {"content": [_chat_token(token) for token in tokens], "refusal": None}


def _chat_token(token: TokenText) -> dict[str, object]:
    return {
        "token": token.text,
        "logprob": max(token.logprob, MIN_LOGPROB),
        "bytes": list(token.raw),
        "top_logprobs": [
            {"token": text, "logprob": max(logprob, MIN_LOGPROB), "bytes": list(raw)}
            for text, raw, logprob in token.top
        ],
    }


def legacy_logprobs(tokens: Iterable[TokenText], offset: int) -> tuple[dict[str, object], int]:
    """`choices[].logprobs` of a text completion; `offset` is where the first token's text begins, in
    characters. Returns the offset after the last one too."""
    texts: list[str] = []
    values: list[float] = []
    tops: list[dict[str, float]] = []
    offsets: list[int] = []
    for token in tokens:
        texts.append(token.text)
        values.append(max(token.logprob, MIN_LOGPROB))
        tops.append({text: max(logprob, MIN_LOGPROB) for text, _, logprob in token.top})
        offsets.append(offset)
        offset += len(token.text)
    fields: dict[str, object] = {
        "tokens": texts,
        "token_logprobs": values,
        "top_logprobs": tops,
        "text_offset": offsets,
    }
    return fields, offset


def tool_call_pieces(pieces: Iterable[ToolCallDelta]) -> list[dict[str, object]]:
    """`delta.tool_calls` of a streamed chat."""
    return [
        {
            "index": piece.index,
            "id": piece.call_id,
            "type": "function",
            "function": {"name": piece.name, "arguments": piece.arguments},
        }
        if piece.name
        else {"index": piece.index, "function": {"arguments": piece.arguments}}
        for piece in pieces
    ]


class WholeToolCall(NamedTuple):
    """One call, its pieces put together."""

    call_id: str
    name: str
    arguments: str


def whole_tool_calls(pieces: Iterable[ToolCallDelta]) -> list[WholeToolCall]:
    """The pieces of each index put together, in order of their index."""
    names: dict[int, tuple[str, str]] = {}
    arguments: dict[int, list[str]] = {}
    for piece in pieces:
        if piece.name:
            names[piece.index] = (piece.call_id, piece.name)
        arguments.setdefault(piece.index, []).append(piece.arguments)
    return [
        WholeToolCall(*names.get(index, ("", "")), "".join(texts))
        for index, texts in sorted(arguments.items())
    ]


def tool_call_fields(pieces: Iterable[ToolCallDelta]) -> list[dict[str, object]]:
    """`message.tool_calls` of a whole chat."""
    return [
        {
            "id": call.call_id,
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for call in whole_tool_calls(pieces)
    ]
