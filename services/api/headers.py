"""What a client may wish for by header, checked: priority band, deadline, use of the cache, idempotency.

Rules: pure; header names are lower-case. Time left, never a clock reading, is what headers carry: hosts whose
clocks disagree still agree about a deadline (as gRPC's grpc-timeout does). Wishes only: identity and limits
decide.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, NamedTuple

from ..config import LimitsConfig
from ..errors import RequestError
from ..outcome import Reason
from . import event_ids
from .json_body import shown

CacheWish = Literal["default", "no-cache", "no-store", "sampled"]

Locality = Literal["any", "local"]

HEADERS = frozenset(
    (
        "x-priority-band", "x-request-deadline-ms", "x-request-timeout-s", "cache-control", "idempotency-key",
        "last-event-id", "x-locality",
    )
)  # fmt: skip
"""Every header that changes how a request is handled, apart from the credential."""

_BAND = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_KEY = re.compile(r"[!-~]{1,255}")
_NUMBER = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,20})?(?:[eE][+-]?[0-9]{1,3})?")
MIN_DEADLINE_S = 0.001
"""Less time than this is none."""


class Wishes(NamedTuple):
    """What headers asked for. `deadline_s` is time left in seconds from now, None: not given."""

    band: str = ""
    deadline_s: float | None = None
    cache: CacheWish = "default"
    idempotency_key: str = ""
    last_event_id: str = ""
    locality: Locality = "any"


NO_WISHES = Wishes()


def read_wishes(headers: Mapping[str, str], limits: LimitsConfig) -> Wishes:
    """Read and check the headers of `HEADERS`. Raises RequestError (INVALID_FIELD, `param` is the header)."""
    if HEADERS.isdisjoint(headers):
        return NO_WISHES
    if headers.get("idempotency-key") == "":  # who sends one relies on it
        raise _refused("idempotency-key", "", "it must not be empty")
    return Wishes(
        check_band(headers.get("x-priority-band", ""), "x-priority-band"),
        _deadline_s(headers, limits),
        _cache_wish(headers.get("cache-control", "")),
        check_idempotency_key(headers.get("idempotency-key", ""), "idempotency-key"),
        check_last_event_id(headers.get("last-event-id", "")),
        check_locality(headers.get("x-locality", "any")),
    )


def check_band(band: str, param: str) -> str:
    """The name of a band, well-formed. Whether it exists, and is allowed, is decided by identity."""
    if band and not _BAND.fullmatch(band):
        raise _refused(param, band, "a band's name has 1 to 64 letters, digits, '_', '.', '-'")
    return band


def _deadline_s(headers: Mapping[str, str], limits: LimitsConfig) -> float | None:
    """The shorter of both headers, when both are given."""
    left_s: float | None = None
    for name, per_second in (("x-request-timeout-s", 1.0), ("x-request-deadline-ms", 1000.0)):
        text = headers.get(name)
        if text is None:
            continue
        value_s = float(text) / per_second if _NUMBER.fullmatch(text) else 0.0
        if not MIN_DEADLINE_S <= value_s <= limits.max_deadline_s:
            least, most = MIN_DEADLINE_S * per_second, limits.max_deadline_s * per_second
            raise _refused(name, text, f"time left must be a number between {least:g} and {most:g}")
        left_s = value_s if left_s is None else min(left_s, value_s)
    return left_s


def _cache_wish(cache_control: str) -> CacheWish:
    """RFC 9111 §5.2.1: no-store > no-cache (max-age=0 says the same); unknown directives do not count.

    `sampled` is ours (an extension directive, §5.2.3): a stored answer may be given although it was drawn at
    a temperature above 0.
    """
    if not cache_control:
        return "default"
    directives = {part.strip().lower() for part in cache_control.split(",")}
    if "no-store" in directives:
        return "no-store"
    if "no-cache" in directives or "max-age=0" in directives:
        return "no-cache"
    return "sampled" if "sampled" in directives else "default"


def check_idempotency_key(key: str, param: str) -> str:
    """The client's name for this request and its answer, well-formed. The draft standard wants a quoted string, most
    clients send it bare: both name the same (draft-ietf-httpapi-idempotency-key-header §2.1)."""
    if len(key) >= 2 and key[0] == key[-1] == '"':
        key = key[1:-1]
        if not key:
            raise _refused(param, key, "it must not be empty")
    if key and not _KEY.fullmatch(key):
        raise _refused(param, key, "it has 1 to 255 visible ASCII characters")
    return key


def check_locality(text: str) -> Locality:
    """Where the request may be answered. A word that is not known is refused: who sends one relies on it."""
    if text == "local" or text == "any":
        return text
    raise _refused("x-locality", text, "it is local, or any")


def check_last_event_id(event_id: str) -> str:
    """The last event that the client has of an answer, as we told it."""
    if event_id:
        event_ids.request_of(event_id)
    return event_id


def resume_point(wishes: Wishes, *, stream: bool) -> str:
    """Where to go on. Raises RequestError: a whole answer has no middle to begin in."""
    if wishes.last_event_id and not stream:
        raise RequestError(Reason.INVALID_FIELD, "last-event-id needs stream: true", param="last-event-id")
    return wishes.last_event_id


def _refused(name: str, value: str, rule: str) -> RequestError:
    return RequestError(Reason.INVALID_FIELD, f"{name}: '{shown(value)}' is refused: {rule}", param=name)
