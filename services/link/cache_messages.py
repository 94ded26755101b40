"""What gateways and the response cache say to one another; part of messages.py, with its promise: tags are never
reused, fields are only appended (with defaults).
"""

from __future__ import annotations

import msgspec

from ..request import TokenLogprob
from .base import Message


class CacheGet(Message, frozen=True, tag=60):
    """Look a key up. With `lead`, a miss makes this gateway the leader of the key's flight.

    `person` is the tag of whoever asks (for deletion); `rank` is the band's rank, so that an urgent request does
    not wait behind a batch leader; `refresh` asks to generate anew without looking (Cache-Control: no-cache).
    """

    call_id: int
    key: bytes
    lead: bool = True
    person: bytes = b""
    rank: int = 0
    refresh: bool = False


class CacheAnswer(Message, frozen=True, tag=61):
    """`value` is the stored answer (hit); empty with `leader` true: generate it; `leader` false: another gateway
    generates this key already (its tokens follow in CacheFeeds, its answer in a second CacheAnswer, or a promotion
    to leader). `ttl_s` is what is left of a hit's life; `person` is the tag of whoever it was made for."""

    call_id: int
    value: bytes
    leader: bool
    ttl_s: float = 0.0
    person: bytes = b""


class CachePut(Message, frozen=True, tag=62):
    """Store an answer and end the key's flight. `ttl_s` 0 ends the flight without storing. `call_id` is that of
    the CacheGet that made the sender leader: nobody else may store."""

    key: bytes
    value: bytes
    ttl_s: float
    call_id: int = 0


class CachePurge(Message, frozen=True, tag=63):
    """Drop everything under a purge scope (hex of cache.key's scopes). Broadcast back to every gateway."""

    scope: str


class CacheLook(Message, frozen=True, tag=68):
    """Cache → gateway: how many answers under this purge scope (hex) do you hold that you would still give or keep?
    Links are in order, so that the answer counts what the purges before it left."""

    ask_id: int
    scope: str


class CacheHeld(Message, frozen=True, tag=69):
    """Gateway → cache: so many."""

    ask_id: int
    num: int


class FeedPart(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What one engine step produced for one choice of a flight's answer: a TokenFrame without its stream."""

    choice: int
    token_ids: tuple[int, ...]
    finish: str | None = None
    logprobs: tuple[TokenLogprob, ...] | None = None
    cached_tokens: int = 0


class CacheFeed(Message, frozen=True, tag=64):
    """Parts of a flight's answer, in order: from its leader to the cache, and from the cache to a follower."""

    call_id: int
    parts: tuple[FeedPart, ...]


class CacheWant(Message, frozen=True, tag=65):
    """Cache → leader: somebody follows. Feed every part after the first `have`, from now on at once."""

    call_id: int
    have: int


class CacheLeave(Message, frozen=True, tag=66):
    """Gateway → cache: this call has no part in its flight any more (a leader is replaced; with a `reason` the
    flight fails for all, because the request itself is at fault). Cache → follower: the flight is over without an
    answer; with a `reason` it failed, without one go on alone."""

    call_id: int
    reason: str = ""
    message: str = ""


class CacheHello(Message, frozen=True, tag=67):
    """Cache → gateway, first on every link: which cache this is and how many purges it has run. What a gateway
    kept in its own memory under another (boot, purges) may have been purged while it could not hear: it goes."""

    boot: str
    purges: int
