"""What is kept to answer questions by meaning: entries by namespace, and what each tenant's outcomes allow. Pure:
vectors, chances and times in, verdicts out.

Rules: holds no answers, only where they are filed (the exact cache keeps, seals, purges and ends them); knows no
embedder, no store, no link. Nothing is ever compared across namespaces: a namespace is a MAC of the authenticated
tenant and of everything but the question's words (key.CacheKeys.namespace).

1. An entry is only found in the namespace that it was added to.
2. After `purge(scope)` no entry that was added under that scope is found, and nothing of its text is left.
3. Of the entries that `guards.compatible` lets pass, the one least likely to be wrong is taken.
4. There are at most `max_entries`; the one that was used least recently goes first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from itertools import count
from typing import NamedTuple

import msgspec

from .guards import Marks, compatible
from .index import Index, Vector
from .key import TAG_BYTES, CacheKey
from .semantic import Entry, Trust, Verdict

NUM_CANDIDATES = 5


class Meaning:
    """One kept answer: where it is filed, and what its question has learned."""

    __slots__ = ("entry_id", "expires_s", "key", "learned", "marks", "namespace")

    def __init__(
        self, entry_id: int, namespace: bytes, key: CacheKey, marks: Marks, expires_s: float
    ) -> None:
        self.entry_id, self.namespace, self.key, self.marks = entry_id, namespace, key, marks
        self.expires_s = expires_s
        self.learned = Entry()


class Near(NamedTuple):
    """What was found near a question. `meaning` None: nothing comparable (MISS)."""

    verdict: Verdict
    meaning: Meaning | None = None
    similarity: float = 0.0
    score: float = 1.0


class TrustStats(msgspec.Struct, frozen=True):
    """One tenant (by its tag) under one bound: outcomes verified so far, the score under which hits are given (0: none
    yet), and the false-hit rate as audits estimate it, with its upper 95% bound."""

    tenant: str
    delta: float
    verified: int
    cutoff: float
    audited: int
    false_hits: float
    false_hits_bound: float


class Meanings:
    """See the module. `make_index` makes the index of one namespace for vectors of so many dimensions."""

    def __init__(self, make_index: Callable[[int], Index], max_entries: int) -> None:
        self._make_index, self._max_entries = make_index, max_entries
        self._ids = count(1)
        self._meanings: OrderedDict[int, Meaning] = OrderedDict()
        self._indexes: dict[bytes, Index] = {}
        self._by_scope: dict[bytes, set[int]] = {}
        self._by_key: dict[tuple[bytes, bytes], int] = {}
        self._trusts: dict[tuple[bytes, float], Trust] = {}

    def __len__(self) -> int:
        return len(self._meanings)

    def __contains__(self, meaning: Meaning) -> bool:
        """Is it still kept?"""
        return meaning.entry_id in self._meanings

    def trust(self, namespace: bytes, delta: float) -> Trust:
        """What the outcomes of this namespace's tenant allow under `delta`."""
        name = (namespace[:TAG_BYTES], delta)
        trust = self._trusts.get(name)
        if trust is None:
            trust = self._trusts[name] = Trust(delta)
        return trust

    def near(
        self, namespace: bytes, delta: float, vector: Vector, marks: Marks, chance: float, now_s: float
    ) -> Near:
        """May a kept answer be given? `chance` is uniform in [0, 1)."""
        index = self._indexes.get(namespace)
        if index is None:
            return Near(Verdict.MISS)
        trust = self.trust(namespace, delta)
        best: Near | None = None
        for entry_id, similarity in index.nearest(vector, NUM_CANDIDATES):
            meaning = self._meanings[entry_id]
            if meaning.expires_s <= now_s:
                self.drop(meaning)
            elif compatible(marks, meaning.marks):
                verdict, score = trust.decide(meaning.learned, similarity, chance)
                if best is None or score < best.score:
                    best = Near(verdict, meaning, similarity, score)
        if best is None or best.meaning is None:
            return Near(Verdict.MISS)
        self._meanings.move_to_end(best.meaning.entry_id)
        return best

    def learn(self, near: Near, delta: float, right: bool) -> None:
        """The model was asked, and its answer compared with that of `near.meaning`."""
        if near.meaning is not None:
            trust = self.trust(near.meaning.namespace, delta)
            audited = near.verdict in (Verdict.AUDIT, Verdict.HIT)
            trust.observe(near.meaning.learned, near.similarity, right, audited=audited)

    def add(self, namespace: bytes, key: CacheKey, vector: Vector, marks: Marks, expires_s: float) -> None:
        """An answer was kept under `key` until `expires_s`."""
        known = self._by_key.get((namespace, key.wire))
        if known is not None:
            self.drop(self._meanings[known])
        entry_id = next(self._ids)
        index = self._indexes.get(namespace)
        if index is None:
            index = self._indexes[namespace] = self._make_index(len(vector))
        index.add(entry_id, vector)
        self._meanings[entry_id] = Meaning(entry_id, namespace, key, marks, expires_s)
        self._by_key[namespace, key.wire] = entry_id
        for scope in key.scopes:
            self._by_scope.setdefault(scope, set()).add(entry_id)
        while len(self._meanings) > self._max_entries:
            self.drop(next(iter(self._meanings.values())))

    def drop(self, meaning: Meaning) -> None:
        """Forget one entry. Idempotent."""
        if self._meanings.pop(meaning.entry_id, None) is None:
            return
        del self._by_key[meaning.namespace, meaning.key.wire]
        index = self._indexes[meaning.namespace]
        index.remove(meaning.entry_id)
        if not len(index):
            del self._indexes[meaning.namespace]
        for scope in meaning.key.scopes:
            ids = self._by_scope[scope]
            ids.discard(meaning.entry_id)
            if not ids:
                del self._by_scope[scope]

    def held(self, scope: bytes) -> int:
        """Entries under a purge scope."""
        return len(self._by_scope.get(scope, ()))

    def purge(self, scope: bytes) -> int:
        """Forget everything under a purge scope; of a tenant, what its outcomes taught too. Returns how many."""
        ids = list(self._by_scope.get(scope, ()))
        for entry_id in ids:
            self.drop(self._meanings[entry_id])
        if scope[:1] == b"t":
            for name in [name for name in self._trusts if name[0] == scope[1:]]:
                del self._trusts[name]
        return len(ids)

    def stats(self) -> tuple[TrustStats, ...]:
        """Per tenant and bound."""
        return tuple(
            TrustStats(
                tag.hex(), delta, trust.num_verified, trust.cutoff, trust.num_audited, *trust.false_hits()
            )
            for (tag, delta), trust in self._trusts.items()
        )

    def check_integrity(self) -> None:
        """Raises AssertionError when an index and the entries disagree."""
        assert sum(map(len, self._indexes.values())) == len(self._meanings) == len(self._by_key)
        assert all(self._indexes.values())
        indexed = {(scope, entry_id) for scope, ids in self._by_scope.items() for entry_id in ids}
        assert indexed == {(scope, i) for i, each in self._meanings.items() for scope in each.key.scopes}
