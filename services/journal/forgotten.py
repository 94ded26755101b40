"""Scopes that were purged, for owners that could not hear of it: what they bring back is not taken. Pure.

Rules: knows scopes as bytes. An answer that the book knows is judged by the book; one that only its owner knows,
under a scope that was purged since this book began, is of before the purge, or cannot be told from such a one.
"""

from __future__ import annotations

from collections.abc import Iterable

MAX_KNOWN = 10_000
"""Purges; far more than a link is ever down for."""


class Forgotten:
    """The last purges of one book."""

    def __init__(self, max_known: int = MAX_KNOWN) -> None:
        self._scopes: dict[bytes, None] = {}
        self._max_known = max_known

    def add(self, scope: bytes) -> None:
        """It was purged just now."""
        self._scopes.pop(scope, None)
        self._scopes[scope] = None
        if len(self._scopes) > self._max_known:
            del self._scopes[next(iter(self._scopes))]

    def covers(self, scopes: Iterable[bytes]) -> bool:
        """Was one of them purged?"""
        return not self._scopes.keys().isdisjoint(scopes)
