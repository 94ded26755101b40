"""Which pages of other origins may call the API from a browser (Fetch standard, CORS). Pure: header lines in and out.

Rules: nothing is allowed that the settings do not name; only routes for clients, never an operator's or the metrics,
which a process on this host may read without a key. Credentials are keys in a header, never cookies, so that an origin
that is allowed has no more than the key that it was given.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from ..errors import ConfigError

_ORIGIN = re.compile(r"https?://(?:[a-z0-9.-]+|\[[0-9a-f:]+\])(?::\d{1,5})?")
_NAMES = re.compile(rb"[A-Za-z0-9-]+(?:\s*,\s*[A-Za-z0-9-]+)*")
_MAX_NAMES_BYTES = 1024
_READABLE = (
    b"x-request-id, x-cache, x-cache-kind, x-resumable, x-passages, x-aigc, x-served-by, idempotent-replayed, "
    b"retry-after, retry-after-ms, "
    b"x-ratelimit-limit-requests, x-ratelimit-remaining-requests, "
    b"x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens"
)
KEPT_S = 600


def origins_of(text: str) -> tuple[str, ...]:
    """Of a setting: origins with commas between them, or `*`. Raises ConfigError."""
    origins = tuple(origin.strip().lower().rstrip("/") for origin in text.split(",") if origin.strip())
    for origin in origins:
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            raise ConfigError(f"{origin!r} is no origin: https://host or https://host:port, or * for all")
    return origins


class Cors:
    """What is answered to a browser that calls for a page of another origin."""

    def __init__(self, origins: Iterable[str], methods: bytes = b"GET, POST") -> None:
        self._methods = methods
        self._origins = {origin.encode() for origin in origins}

    def allows(self, path: bytes, origin: bytes) -> bool:
        """May a page of `origin` ask for this?"""
        named = b"*" in self._origins or origin.lower() in self._origins
        return named and (path.startswith(b"/v1/") or path == b"/generate")

    def _named(self, origin: bytes) -> bytes:
        return b"*" if b"*" in self._origins else origin

    def lines(self, origin: bytes) -> bytes:
        """Header lines of an answer to an origin that is allowed."""
        return b"access-control-allow-origin: %b\r\nvary: origin\r\naccess-control-expose-headers: %b\r\n" % (
            self._named(origin),
            _READABLE,
        )

    def preflight(self, origin: bytes, headers: Mapping[bytes, bytes]) -> bytes:
        """Header lines of the answer to a browser that asks first. It may send what it says that it wants to: what we
        do not know we ignore."""
        names = headers.get(b"access-control-request-headers", b"")
        if len(names) > _MAX_NAMES_BYTES or not _NAMES.fullmatch(names):
            names = b"authorization, content-type"
        return (
            b"access-control-allow-origin: %b\r\nvary: origin, access-control-request-headers\r\n"
            b"access-control-allow-methods: %b\r\naccess-control-allow-headers: %b\r\n"
            b"access-control-max-age: %d\r\n" % (self._named(origin), self._methods, names, KEPT_S)
        )
