"""The semantic index as one stateful machine. Rules 1, 2 and 4 of services/cache/meanings.py:

1. An entry is only found in the namespace that it was added to.
2. After a purge no entry that was added under that scope is found, and nothing of its text is left.
4. There are at most `max_entries`.
And: what was added and is still within its life, its bound and its namespace is found by its own text.
"""

from __future__ import annotations

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from services.cache.guards import marks_of
from services.cache.index import ExactIndex, Vector
from services.cache.key import CacheKey
from services.cache.meanings import Meanings
from services.cache.semantic import Verdict

MAX_ENTRIES = 8
TEXTS = ("alpha", "beta", "gamma")


def vector_of(text: str) -> Vector:
    row = np.zeros(4, dtype=np.float32)
    row[TEXTS.index(text)] = 1.0
    return row


def namespace_of(tenant: int, system: int) -> bytes:
    return b"%08d%08d%032d" % (tenant, 1, system)


def key_of(tenant: int, number: int, person: int) -> CacheKey:
    wire = b"%08d%08d%032d" % (tenant, 1, 1000 + number)
    return CacheKey(wire, b"%08d" % (10 * tenant + person) if person else b"")


class Machine(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.meanings = Meanings(ExactIndex, MAX_ENTRIES)
        self.kept: dict[bytes, tuple[bytes, str, tuple[bytes, ...], float]] = {}
        self.now_s = 0.0
        self.number = 0

    @rule(
        tenant=st.integers(1, 2),
        system=st.integers(1, 2),
        person=st.integers(0, 2),
        text=st.sampled_from(TEXTS),
        life_s=st.sampled_from([5.0, 50.0]),
    )
    def add(self, tenant: int, system: int, person: int, text: str, life_s: float) -> None:
        self.number += 1
        key, namespace = key_of(tenant, self.number, person), namespace_of(tenant, system)
        self.meanings.add(namespace, key, vector_of(text), marks_of(text), self.now_s + life_s)
        self.kept[key.wire] = (namespace, text, key.scopes, self.now_s + life_s)

    @rule(tenant=st.integers(1, 2), system=st.integers(1, 2), text=st.sampled_from(TEXTS))
    def ask(self, tenant: int, system: int, text: str) -> None:
        namespace = namespace_of(tenant, system)
        near = self.meanings.near(namespace, 0.1, vector_of(text), marks_of(text), 0.5, self.now_s)
        if near.meaning is None:
            assert near.verdict is Verdict.MISS
            return
        where, _, _, expires_s = self.kept[near.meaning.key.wire]
        assert where == namespace, "another namespace's entry"
        assert expires_s > self.now_s

    @rule(tenant=st.integers(1, 2), person=st.integers(1, 2), which=st.integers(0, 2))
    def purge(self, tenant: int, person: int, which: int) -> None:
        scope = key_of(tenant, 0, person).scopes[which]
        self.meanings.purge(scope)
        self.kept = {wire: each for wire, each in self.kept.items() if scope not in each[2]}
        if which == 0:
            assert all(bytes.fromhex(each.tenant) != scope[1:] for each in self.meanings.stats())

    @rule(seconds=st.sampled_from([1.0, 10.0]))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds

    @invariant()
    def it_is_whole(self) -> None:
        if hasattr(self, "meanings"):
            self.meanings.check_integrity()
            assert len(self.meanings) <= MAX_ENTRIES
            held = {each.key.wire for each in self.meanings._meanings.values()}  # pyright: ignore[reportPrivateUsage]
            assert held <= set(self.kept), "something purged is still there"


TestMeanings = Machine.TestCase
TestMeanings.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)
