"""What the pipeline says to a client, free of any wire format, and the port through which it says it.

Rules: plain data and one Protocol. The pipeline calls a Responder from the event loop, synchronously, once per
token and choice: an implementation encodes and writes, it never awaits.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import msgspec

from .errors import MeshError
from .request import FinishReason, Passage, Usage


class TokenText(msgspec.Struct, frozen=True, gc=False):
    """One token with its log-probability, as text. `raw` are the token's own bytes (a token may be part of a
    character); `top` are alternatives as (text, raw, logprob)."""

    text: str
    raw: bytes
    logprob: float
    top: tuple[tuple[str, bytes, float], ...] = ()


class ToolCallDelta(msgspec.Struct, frozen=True, gc=False):
    """A piece of a tool call. `name` and `call_id` come with the first piece of each `index`."""

    index: int
    arguments: str
    name: str = ""
    call_id: str = ""


def joined_calls(pieces: Iterable[ToolCallDelta]) -> tuple[ToolCallDelta, ...]:
    """One piece of each call, in order of first appearance, with the same arguments."""
    first: dict[int, ToolCallDelta] = {}
    texts: dict[int, list[str]] = {}
    for piece in pieces:
        if piece.index in first:
            texts[piece.index].append(piece.arguments)
        else:
            first[piece.index], texts[piece.index] = piece, [piece.arguments]
    return tuple(
        one if len(texts[index]) == 1 else ToolCallDelta(index, "".join(texts[index]), one.name, one.call_id)
        for index, one in first.items()
    )


class Delta(msgspec.Struct, frozen=True, gc=False):
    """What became visible of one choice. `finish` is set on its last delta, which may have no text. `reasoning` is what
    the model thought, and stands before `text`."""

    choice: int
    text: str
    finish: FinishReason | None = None
    logprobs: tuple[TokenText, ...] | None = None
    tool_calls: tuple[ToolCallDelta, ...] = ()
    num_tokens: int = 1
    reasoning: str = ""

    @property
    def num_chars(self) -> int:
        """What a client is to be sent of it."""
        said = len(self.text) + len(self.reasoning)
        return said + sum(len(one.arguments) for one in self.tool_calls) if self.tool_calls else said


class AllowanceLeft(msgspec.Struct, frozen=True):
    """What the API key may use in a minute and has left after this request; a limit of 0 is none."""

    requests_per_minute: int
    requests: int
    tokens_per_minute: int
    tokens: int


class AnswerHead(msgspec.Struct, frozen=True):
    """Known before the first token. `created` is Unix seconds; `cache` is hit, miss or bypass, and `cache_kind`
    of a hit exact or semantic ("": as the pipeline did not say). `resumable`: the
    answer outlives this connection and this gateway (None: nobody asked for that); `replayed`: another call began
    it. `allowance` of a key with limits. `passages` of the request's documents that the model was given.
    `aigc`: the label for programs (postprocess/labels.py). `served_by`: remote, or "" for engines of this mesh."""

    request_id: str
    model: str
    created: int
    cache: str = "bypass"
    resumable: bool | None = None
    replayed: bool = False
    cache_kind: str = ""
    allowance: AllowanceLeft | None = None
    passages: tuple[Passage, ...] = ()
    aigc: str = ""
    served_by: str = ""


class AnswerTail(msgspec.Struct, frozen=True):
    """Known after the last token. `confidence` (0–1 per choice) only when asked for."""

    usage: Usage
    confidence: tuple[float, ...] | None = None


class Responder(Protocol):
    """The client's side of one answer: `begin`, then deltas, then `end`; or `fail` at any point, last.

    Called on the event loop; must not block. `buffered_bytes` is what the client has not read yet: the pipeline
    ends the stream with SLOW_READER above the configured bound.
    """

    def begin(self, head: AnswerHead) -> None: ...
    def delta(self, delta: Delta) -> None: ...
    def end(self, tail: AnswerTail) -> None: ...
    def fail(self, error: MeshError) -> None: ...
    @property
    def buffered_bytes(self) -> int: ...
