"""The semantic cache's messages: a gateway's question after an exact miss, beside its generation. Rules as in
messages.py.

One call: SemanticAsk, perhaps a SemanticFound, then SemanticDone. Nothing waits for an answer: silence means that
the gateway's own generation is the answer, and what it says of that in SemanticDone is what the cache learns from.
"""

from __future__ import annotations

from .base import Message

# gateway → cache -------------------------------------------------------------------------------------------


class SemanticAsk(Message, frozen=True, tag=81):
    """Is a question of the same meaning answered already? `key` is where this request's own answer is filed,
    `namespace` everything but `text` that its answer depends on (both as CacheKeys makes them, with the tenant in
    them); `delta` is the tenant's bound on wrong hits; `person` the tag of whoever asks."""

    call_id: int
    key: bytes
    namespace: bytes
    text: str
    delta: float
    person: bytes = b""


# cache → gateway -------------------------------------------------------------------------------------------


class SemanticFound(Message, frozen=True, tag=82):
    """A hit: the kept answer, as CacheAnswer carries it. Only sent when the bound allows it."""

    call_id: int
    value: bytes
    ttl_s: float


# gateway → cache -------------------------------------------------------------------------------------------


class SemanticDone(Message, frozen=True, tag=83):
    """What became of the call. `used`: the client got the found answer. Otherwise `text` and `finish` are the answer
    that was generated (`finish` empty: none was), kept under `key` for `ttl_s` (0: it is not kept)."""

    call_id: int
    used: bool = False
    text: str = ""
    finish: str = ""
    ttl_s: float = 0.0


SemanticMessage = SemanticAsk | SemanticFound | SemanticDone
"""All of them."""
