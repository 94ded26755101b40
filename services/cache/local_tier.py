"""What a gateway keeps in its own memory, answers and vectors of passages, and what every kind of hit has saved. Pure:
times come in.

Rules: knows answers, keys and purges; no link, no flight. What was kept while this process could not hear of purges may
have been purged: it goes when the Cache says hello and is not the one, or not at the point, that was known before.
"""

from __future__ import annotations

from typing import Literal

from .key import CacheKey
from .local_vectors import LocalVectors
from .scoped_lru import ScopedLru
from .value import CachedAnswer

MAX_LOCAL_TTL_S = 300.0

HitKind = Literal["local", "shared", "semantic"]
"""From this gateway's memory; from the store or another gateway's generation; of a question with the same meaning."""


class LocalTier:
    """See the module."""

    def __init__(self, max_bytes: int) -> None:
        self._kept: ScopedLru[CachedAnswer] = ScopedLru(max_bytes)
        self.vectors = LocalVectors(max_bytes // 4)
        self._known = ("", -1)
        self.hits: dict[HitKind, int] = {"local": 0, "shared": 0, "semantic": 0}
        self.saved_tokens, self.saved_s = 0, 0.0

    def counts(self) -> dict[str, int | float]:
        """Part of ClientStats."""
        return {
            "local_hits": self.hits["local"],
            "remote_hits": self.hits["shared"],
            "semantic_hits": self.hits["semantic"],
            "saved_tokens": self.saved_tokens,
            "saved_s": self.saved_s,
            "local_entries": len(self._kept),
            "local_bytes": self._kept.num_bytes,
        }

    def get(self, key: CacheKey, now_s: float) -> CachedAnswer | None:
        """An answer that is kept here; counted as a hit."""
        entry = self._kept.get(key.wire, now_s)
        if entry is None:
            return None
        self.count(entry.value, "local")
        return entry.value

    def put(self, key: CacheKey, answer: CachedAnswer, size: int, ttl_s: float, now_s: float) -> None:
        """Keep an answer of `size` encoded bytes for `ttl_s`, or MAX_LOCAL_TTL_S if that is less."""
        self._kept.put(key.wire, answer, size, now_s + min(ttl_s, MAX_LOCAL_TTL_S), key.person, key.scopes)

    def count(self, answer: CachedAnswer, kind: HitKind) -> None:
        """A hit."""
        self.hits[kind] += 1
        self.saved_tokens += answer.prompt_tokens + answer.completion_tokens
        self.saved_s += answer.generation_s

    def hello(self, boot: str, purges: int) -> None:
        """The Cache that answers now, and how many purges it has run."""
        if self._known != (boot, purges):
            self._kept.clear()
            self.vectors.clear()
            self._known = (boot, purges)

    def held(self, scope: bytes) -> int:
        """Answers and vectors under a purge scope."""
        return self._kept.held(scope) + self.vectors.held(scope)

    def purge(self, scope: bytes) -> None:
        """One more purge, heard as it happened."""
        self._known = (self._known[0], self._known[1] + 1)
        self._kept.purge(scope)
        self.vectors.purge(scope)
