"""The words everyone speaks: what is asked, what an engine is told, what it answers.

Rules: plain immutable data, no behaviour beyond arithmetic on its own fields; knows no server, no engine, no
store. Structs rather than dataclasses because the same objects travel on the link without a second definition
(docs/adr/0003). Token ids travel as packed little-endian uint32 (`pack_ids`), because decoding a list of 50,000
integers costs milliseconds and copying 200 KB costs microseconds.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable
from typing import Literal

import msgspec

Band = str
"""Name of a priority band; the configured ones are in `QueueConfig.bands` (vip, standard, batch by default)."""

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]

assert sys.byteorder == "little" and array("I").itemsize == 4, "packed ids assume a little-endian host"


def pack_ids(ids: Iterable[int]) -> bytes:
    """Token ids as packed little-endian uint32. Raises OverflowError for ids outside [0, 2^32)."""
    return array("I", ids).tobytes()


def unpack_ids(packed: bytes) -> list[int]:
    """Inverse of `pack_ids`. Raises ValueError when the length is no multiple of four."""
    ids = array("I")
    ids.frombytes(packed)
    return ids.tolist()


def count_ids(packed: bytes) -> int:
    """Number of token ids in `packed`."""
    return len(packed) >> 2


class GuidedDecoding(msgspec.Struct, frozen=True):
    """A grammar the answer must follow. `spec` is the JSON schema, regular expression or EBNF as text."""

    kind: Literal["json_schema", "json_object", "regex", "grammar"]
    spec: str = ""


class SamplingParams(msgspec.Struct, frozen=True, omit_defaults=True):
    """How one choice is sampled. Ranges are checked where the wire is parsed (`services/api`), not here.

    `max_tokens` counts the whole answer, also across a migration; `logprobs` is the number of alternatives per
    token (0: only the chosen one, None: off). `stop` strings are matched by the gateway, never by the engine, so
    that a match may span a migration.
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: dict[int, float] | None = None
    logprobs: int | None = None
    min_tokens: int = 0
    ignore_eos: bool = False
    guided: GuidedDecoding | None = None


class GenerateJob(msgspec.Struct, frozen=True, omit_defaults=True):
    """One choice of one request as an engine sees it: token ids in, token ids out.

    `emitted_ids` are tokens of this answer that another engine already produced; the engine continues after
    them, counts them against `max_tokens`, and never sends them again. `remaining_s` is what is left of the
    request's deadline at the moment of sending. `cache_salt` isolates the tenant's prefix cache. After the first,
    tokens may come up to `stream_interval` at once (vLLM's name): nobody waits for each of them.
    """

    request_id: str
    prompt_ids: bytes
    sampling: SamplingParams
    emitted_ids: bytes = b""
    cache_salt: str = ""
    remaining_s: float = 600.0
    adapter: str = ""
    stream_interval: int = 1


class TokenLogprob(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Natural-log probability of the sampled token and of the `top` alternatives as (token id, logprob)."""

    logprob: float
    top: tuple[tuple[int, float], ...] = ()


class TokenFrame(msgspec.Struct, tag=1, array_like=True, gc=False):
    """What one engine step produced for one stream. Several of them share one link frame.

    `finish` is None while the stream runs; "stop" (end token or stop token id) or "length" ends it. The end
    token itself is part of `token_ids` (it is billed, as vLLM does) and has no text. `cached_tokens` comes with
    the first frame: prompt tokens that the engine's prefix cache held. `index` is the position of the first of
    `token_ids` in the answer, counted from the request's beginning over all migrations: the gateway drops what
    it already has and treats a gap as a lost engine (-1: not known, not checked).
    """

    stream_id: int
    token_ids: tuple[int, ...]
    finish: str | None = None
    logprobs: tuple[TokenLogprob, ...] | None = None
    cached_tokens: int = 0
    index: int = -1


class Usage(msgspec.Struct, frozen=True):
    """Tokens of one request, for the bill. `cached_tokens` is a part of `prompt_tokens`, `reasoning_tokens` one of
    `completion_tokens`."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


class Document(msgspec.Struct, frozen=True):
    """A text that a chat brings along, of which the model gets the passages that matter."""

    text: str
    title: str = ""


class Passage(msgspec.Struct, frozen=True):
    """Characters `start` to `end` of the request's document number `document`; `score` is their likeness to the
    question (-1 to 1)."""

    document: int
    start: int
    end: int
    score: float = 1.0


class InferenceRequest(msgspec.Struct, frozen=True):
    """What a client asked, valid and free of any wire format, before a token was counted.

    `messages` (chat) or `prompts` (completion: text or packed token ids, one entry per prompt) is filled, never
    both. `choices` are `n` per prompt; choice index = prompt index · n + i. `band` and `deadline_s` are wishes:
    identity and limits decide. `person` is the OpenAI `user` field, for deletion on request.
    `cache` is what `Cache-Control` allows. `guided` decoding stands in `sampling`. `idempotency_key` names the answer
    in the journal; `last_event_id` is the last event that the client has of it ("": it begins anew).
    `template_kwargs` are what the client tells a chat's template, as `{"thinking": true}`. Of `documents` at most
    `max_passages` segments are put before the question. `locality` local: no remote server gets it.
    """

    kind: Literal["chat", "completion", "generate", "embedding"]
    model: str
    sampling: SamplingParams
    messages: tuple[dict[str, object], ...] = ()
    prompts: tuple[str | bytes, ...] = ()
    n: int = 1
    stream: bool = False
    include_usage: bool = False
    echo: bool = False
    tools: tuple[dict[str, object], ...] = ()
    tool_choice: str | dict[str, object] = "auto"
    person: str = ""
    band: str = ""
    deadline_s: float | None = None
    confidence: bool = False
    cache: Literal["default", "no-cache", "no-store", "sampled"] = "default"
    idempotency_key: str = ""
    max_tokens_given: bool = True
    last_event_id: str = ""
    template_kwargs: dict[str, bool | int | float | str] | None = None
    documents: tuple[Document, ...] = ()
    max_passages: int = 0
    locality: Literal["any", "local"] = "any"

    @property
    def num_choices(self) -> int:
        """Number of choices in the answer."""
        return self.n * max(1, len(self.prompts))
