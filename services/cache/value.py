"""A finished answer as it is kept, and as it is replayed. Pure: structs and bytes.

Rules: what a client was sent, in the words of answer.py, and nothing about how it is sent; knows no store, no
key, no tenant. The encoding is msgpack behind one byte that names it; values over a bound are compressed.
Sealing (authenticity) is the store's business, so that memory and Redis hold the same bytes.

First byte: 1 msgpack, 2 msgpack in zlib (level 1: 180 µs for 8 KB of text, level 6 takes 290 and gives 1%
more).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import msgspec

from ..answer import Delta, TokenText, ToolCallDelta
from ..request import FinishReason, Usage

PLAIN, ZLIB = 1, 2
MAX_DECODED_BYTES = 64 * 1024 * 1024
"""A value that unpacks to more is not one of ours (a bomb, had the seal been broken)."""


class CachedChoice(msgspec.Struct, frozen=True, array_like=True):
    """One choice of an answer: its visible text, how many tokens were billed for it, and why it ended.

    `token_ids` (packed) are kept for whoever replays below the text, else empty; `logprobs` only when asked
    for.
    """

    text: str
    num_tokens: int
    finish: FinishReason
    token_ids: bytes = b""
    logprobs: tuple[TokenText, ...] | None = None
    tool_calls: tuple[ToolCallDelta, ...] = ()
    reasoning: str = ""


class CachedAnswer(msgspec.Struct, frozen=True, array_like=True):
    """All choices of a finished answer, in order. `confidence` has one entry per choice, when asked for.

    `cached_tokens` is what the prefix cache held when the answer was made; `generation_s` is the engine time
    that one hit saves.
    """

    choices: tuple[CachedChoice, ...]
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    confidence: tuple[float, ...] | None = None
    generation_s: float = 0.0
    reasoning_tokens: int = 0

    def usage(self) -> Usage:
        """The usage of a hit: the same counts, and the whole prompt came from a cache."""
        return Usage(
            self.prompt_tokens,
            self.completion_tokens,
            cached_tokens=self.prompt_tokens,
            reasoning_tokens=self.reasoning_tokens,
        )


class BadValue(Exception):
    """The bytes are no answer of this version."""


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(CachedAnswer)


def encode(answer: CachedAnswer, *, compress_over_bytes: int = 2048) -> bytes:
    """The bytes to keep. Compressed when that is asked for by size and gains anything."""
    plain = _ENCODER.encode(answer)
    if len(plain) > compress_over_bytes:
        packed = zlib.compress(plain, 1)
        if len(packed) < len(plain):
            return bytes((ZLIB,)) + packed
    return bytes((PLAIN,)) + plain


def decode(value: bytes) -> CachedAnswer:
    """Inverse of `encode`. Raises BadValue for anything else; never another exception."""
    try:
        if value[:1] == b"\x01":
            return _DECODER.decode(memoryview(value)[1:])
        if value[:1] == b"\x02":
            inflate = zlib.decompressobj()
            plain = inflate.decompress(memoryview(value)[1:], MAX_DECODED_BYTES)
            if inflate.eof and not inflate.unused_data:
                return _DECODER.decode(plain)
    except (msgspec.MsgspecError, UnicodeDecodeError, zlib.error) as error:
        raise BadValue(str(error)) from error
    raise BadValue("unknown encoding or truncated value")


def replay(answer: CachedAnswer, piece_chars: int = 0) -> Iterator[Delta]:
    """The answer as deltas, choice by choice; the counts of a choice's deltas add up to its `num_tokens`.

    With `piece_chars` > 0 long texts come in pieces of that many characters (a stream that looks like one);
    choices with log-probabilities or tool calls come whole, because those belong to tokens, not to
    characters. Reasoning comes whole, before all text.
    """
    for number, choice in enumerate(answer.choices):
        text, left, reasoning = choice.text, choice.num_tokens, choice.reasoning
        if 0 < piece_chars < len(text) and choice.logprobs is None and not choice.tool_calls:
            pieces = -(-len(text) // piece_chars)
            share = left // pieces
            for at in range(pieces - 1):
                piece = text[at * piece_chars : (at + 1) * piece_chars]
                yield Delta(number, piece, num_tokens=share, reasoning=reasoning)
                left, reasoning = left - share, ""
            text = text[(pieces - 1) * piece_chars :]
        yield Delta(number, text, choice.finish, choice.logprobs, choice.tool_calls, left, reasoning)
