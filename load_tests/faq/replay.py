"""Replays a labelled workload over the semantic cache's core and over static thresholds. Pure: vectors come in.

Every arm sees the same stream with an exact tier before it (the same text again is an exact hit and counts for no
arm's semantic hits). A kept answer is right when its question had the same label.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from load_tests.faq.generator import Question
from services.cache.bounds import upper_bound
from services.cache.embedding import Vectors
from services.cache.guards import Marks, compatible, marks_of
from services.cache.index import ExactIndex
from services.cache.key import WIRE_BYTES, CacheKey
from services.cache.meanings import Meanings
from services.cache.semantic import Verdict

NUM_CANDIDATES = 5


class Tally(NamedTuple):
    """What became of a workload. `verified` were asked of the model though something near was kept."""

    requests: int
    exact: int
    hits: int
    wrong: int
    verified: int
    audit_rate: float = 0.0
    audit_bound: float = 1.0

    @property
    def false_rate(self) -> float:
        return self.wrong / max(1, self.hits)

    @property
    def false_bound(self) -> float:
        """Upper 95% bound (Clopper-Pearson) of the share of wrong hits."""
        return upper_bound(self.wrong, self.hits)

    @property
    def hit_rate(self) -> float:
        return (self.exact + self.hits) / max(1, self.requests)


class Kept:
    """What a static threshold compares with: labels, marks and an exact index."""

    def __init__(self, dimensions: int) -> None:
        self.labels: list[str] = []
        self.marks: list[Marks] = []
        self.index = ExactIndex(dimensions)

    def add(self, question: Question, vector: np.ndarray, marks: Marks) -> None:
        self.index.add(len(self.labels), vector)
        self.labels.append(question.label)
        self.marks.append(marks)

    def nearest(self, vector: np.ndarray, marks: Marks, *, guarded: bool) -> tuple[int, float] | None:
        for entry_id, similarity in self.index.nearest(vector, NUM_CANDIDATES if guarded else 1):
            if not guarded or compatible(marks, self.marks[entry_id]):
                return entry_id, similarity
        return None


NAMESPACE = bytes(WIRE_BYTES)
NO_MARKS = marks_of("")
THRESHOLDS = (*(0.80 + step / 100 for step in range(20)), 0.985, 0.995)


def learned(
    questions: Sequence[Question],
    vectors: Mapping[str, np.ndarray],
    delta: float,
    *,
    seed: int = 1,
    history: list[tuple[float, bool]] | None = None,
) -> Tally:
    """The semantic cache as it ships (Meanings). `history` gets (score, right) of every look-up that found an entry."""
    rng = random.Random(seed)
    meanings = Meanings(ExactIndex, len(questions))
    labels: dict[bytes, str] = {}
    seen: set[str] = set()
    exact = hits = wrong = verified = 0
    for question in questions:
        if question.text in seen:
            exact += 1
            continue
        vector, marks = vectors[question.text], marks_of(question.text)
        near = meanings.near(NAMESPACE, delta, vector, marks, rng.random(), 0.0)
        if near.meaning is not None:
            right = labels[near.meaning.key.wire] == question.label
            if history is not None:
                history.append((near.score, right))
            if near.verdict is Verdict.HIT:
                hits += 1
                wrong += not right
                continue
            verified += 1
            meanings.learn(near, delta, right)
        seen.add(question.text)
        key = CacheKey(len(labels).to_bytes(WIRE_BYTES, "big"))
        labels[key.wire] = question.label
        meanings.add(NAMESPACE, key, vector, marks, 1.0)
    rate, bound = meanings.trust(NAMESPACE, delta).false_hits()
    return Tally(len(questions), exact, hits, wrong, verified, rate, bound)


def static(
    questions: Sequence[Question], vectors: Mapping[str, np.ndarray], threshold: float, *, guarded: bool
) -> Tally:
    """One threshold for all: everything at least so similar is a hit."""
    kept = Kept(len(next(iter(vectors.values()))))
    seen: set[str] = set()
    exact = hits = wrong = 0
    for question in questions:
        if question.text in seen:
            exact += 1
            continue
        vector, marks = vectors[question.text], marks_of(question.text) if guarded else NO_MARKS
        near = kept.nearest(vector, marks, guarded=guarded)
        if near is not None and near[1] >= threshold:
            hits += 1
            wrong += kept.labels[near[0]] != question.label
            continue
        seen.add(question.text)
        kept.add(question, vector, marks)
    return Tally(len(questions), exact, hits, wrong, 0)


def best_static(
    questions: Sequence[Question], vectors: Mapping[str, np.ndarray], delta: float, *, guarded: bool
) -> tuple[float, Tally]:
    """The threshold with the most hits among those that keep the bound (the same test: the upper 95% bound of wrong
    hits), chosen with hindsight over the whole stream: an oracle that no running cache has."""
    best = (1.0, static(questions, vectors, 1.01, guarded=guarded))
    for threshold in sorted(THRESHOLDS, reverse=True):
        tally = static(questions, vectors, threshold, guarded=guarded)
        if tally.hits > best[1].hits and tally.false_bound <= delta:
            best = (threshold, tally)
        if tally.false_bound > 2 * delta:
            break  # lower thresholds only get worse
    return best


def by_text(texts: Sequence[str], vectors: Vectors) -> dict[str, np.ndarray]:
    """Rows by their text."""
    return {text: vectors[number] for number, text in enumerate(texts)}
