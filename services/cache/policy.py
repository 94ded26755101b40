"""Which requests may be answered from the response cache, and which answers may be kept. Pure.

Rules: decides from the request, the principal's settings and sizes; knows no key, no store, no time. Every
refusal has a word (`why`) that is fit for a metric label.

An answer is kept when asking again would give the same answer: temperature 0, or a seed. Sampled answers only
when the request or its tenant opted in. `Cache-Control: no-store` keeps nothing and looks nothing up;
`no-cache` asks the model anew and replaces what is kept.
"""

from __future__ import annotations

from typing import Literal, cast

import msgspec

from ..config import CacheConfig
from ..request import InferenceRequest

Why = Literal["", "disabled", "no_store", "no_cache", "sampled", "attachments"]

MAX_TTL_S = 30 * 24 * 3600.0


class Verdict(msgspec.Struct, frozen=True):
    """`look_up`: an answer kept earlier will do. `store`: this answer may be kept. Neither: do not ask the
    cache at all. `x-cache` is "bypass" unless `look_up`."""

    look_up: bool
    store: bool
    why: Why = ""


_YES = Verdict(look_up=True, store=True)
_REFRESH = Verdict(look_up=False, store=True, why="no_cache")


def decide(config: CacheConfig, request: InferenceRequest, *, tenant_caches_sampled: bool = False) -> Verdict:
    """What the response cache may do for `request`. A few µs at most."""
    if not config.enabled:
        return Verdict(False, False, "disabled")
    if request.cache == "no-store":
        return Verdict(False, False, "no_store")
    if not (is_deterministic(request) or tenant_caches_sampled or request.cache == "sampled"):
        return Verdict(False, False, "sampled")
    if has_attachments(request):
        return Verdict(False, False, "attachments")
    return _REFRESH if request.cache == "no-cache" else _YES


def is_deterministic(request: InferenceRequest) -> bool:
    """Would asking again give the same answer?"""
    return request.sampling.temperature == 0 or request.sampling.seed is not None


def has_attachments(request: InferenceRequest) -> bool:
    """Does the prompt hold parts that are not text? Token ids do not identify an image."""
    for message in request.messages:
        content = message.get("content")
        if isinstance(content, list):
            for part in cast("list[object]", content):
                if not isinstance(part, dict) or cast("dict[str, object]", part).get("type") != "text":
                    return True
    return False


def may_keep(config: CacheConfig, encoded_bytes: int) -> bool:
    """Is an encoded answer of this size worth a place?"""
    return 0 < encoded_bytes <= config.max_value_bytes


def ttl_s(config: CacheConfig) -> float:
    """How long an answer is kept, in seconds."""
    return min(config.ttl_s, MAX_TTL_S)
