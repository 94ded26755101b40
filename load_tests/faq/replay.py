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
from services.cache.guards import compatible, marks_of
from services.cache.index import ExactIndex
from services.cache.key import WIRE_BYTES, CacheKey
from services.cache.meanings import Meanings
from services.cache.semantic import Verdict, climb
from services.embedding.embedder import Vectors

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


class Space:
    """All texts of a workload, how similar each is to each, and which may share an answer as far as words can tell."""

    def __init__(self, questions: Sequence[Question], vectors: Mapping[str, np.ndarray]) -> None:
        texts = list(vectors)
        rows = np.stack([vectors[text] for text in texts])
        self.similarity = rows @ rows.T
        at = {text: number for number, text in enumerate(texts)}
        self.order = [at[question.text] for question in questions]
        self.labels = [""] * len(texts)
        for question in questions:
            self.labels[at[question.text]] = question.label
        self._marks = [marks_of(text) for text in texts]

    def nearest(self, text: int, kept: list[int], *, guarded: bool) -> tuple[int, float] | None:
        """The most similar of the kept texts; behind guards, of the `NUM_CANDIDATES` nearest the first that passes."""
        if not kept:
            return None
        near = self.similarity[text, kept]
        if not guarded:
            best = int(near.argmax())
            return kept[best], float(near[best])
        num = min(NUM_CANDIDATES, len(kept))
        for best in sorted(np.argpartition(-near, num - 1)[:num], key=lambda each: -near[each]):
            if compatible(self._marks[text], self._marks[kept[best]]):
                return kept[best], float(near[best])
        return None


NAMESPACE = bytes(WIRE_BYTES)
BUDGETS = (300, 450, 600, 800, 1000, 1500, 2000)
THRESHOLDS = tuple(0.80 + step / 200 for step in range(40))


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


def static(space: Space, threshold: float, *, guarded: bool) -> Tally:
    """One threshold for all: everything at least so similar is a hit."""
    kept: list[int] = []
    seen: set[int] = set()
    exact = hits = wrong = 0
    for text in space.order:
        if text in seen:
            exact += 1
            continue
        near = space.nearest(text, kept, guarded=guarded)
        if near is not None and near[1] >= threshold:
            hits += 1
            wrong += space.labels[near[0]] != space.labels[text]
            continue
        seen.add(text)
        kept.append(text)
    return Tally(len(space.order), exact, hits, wrong, 0)


def best_static(space: Space, delta: float, *, guarded: bool) -> tuple[float, Tally]:
    """The threshold with the most hits among those that keep the bound (the same test: the upper 95% bound of wrong
    hits), chosen with hindsight over the whole stream: an oracle that no running cache has."""
    best = (1.0, static(space, 1.01, guarded=guarded))
    for threshold in sorted(THRESHOLDS, reverse=True):
        tally = static(space, threshold, guarded=guarded)
        if tally.hits > best[1].hits and tally.false_bound <= delta:
            best = (threshold, tally)
        if tally.false_bound > 3 * delta and threshold < 0.97:
            break  # lower thresholds only get worse
    return best


def calibrated(space: Space, delta: float, *, budget: int, guarded: bool) -> tuple[float, Tally]:
    """One threshold for all as somebody without hindsight must find it: from the first `budget` verified outcomes of
    the same stream, by the same test at the same confidence as the learned cutoff, and kept from then on. 1.01: none
    passed, and there is never a hit."""
    kept: list[int] = []
    seen: set[int] = set()
    outcomes: list[tuple[float, bool]] = []
    exact = hits = wrong = 0
    threshold = 2.0
    for text in space.order:
        if text in seen:
            exact += 1
            continue
        near = space.nearest(text, kept, guarded=guarded)
        if near is not None:
            right = space.labels[near[0]] == space.labels[text]
            if near[1] >= threshold:
                hits += 1
                wrong += not right
                continue
            if len(outcomes) < budget:
                outcomes.append((near[1], right))
                if len(outcomes) == budget:
                    distance, rights = np.array(outcomes).T
                    threshold = 1.01 - climb(1.01 - distance, rights, delta)
        seen.add(text)
        kept.append(text)
    return threshold, Tally(len(space.order), exact, hits, wrong, len(outcomes))


def perfect(questions: Sequence[Question]) -> Tally:
    """What no cache can beat: every intent is generated once, and every further question of it is a right hit."""
    kept: set[str] = set()
    known: set[str] = set()
    exact = hits = 0
    for question in questions:
        if question.text in kept:
            exact += 1
        elif question.label in known:
            hits += 1
        else:
            known.add(question.label)
            kept.add(question.text)
    return Tally(len(questions), exact, hits, 0, 0)


def best_calibrated(space: Space, delta: float, *, guarded: bool) -> tuple[float, Tally]:
    """With the budget that turned out best, in hindsight."""
    arms = [calibrated(space, delta, budget=each, guarded=guarded) for each in BUDGETS]
    return max(arms, key=lambda arm: arm[1].hits)


def by_text(texts: Sequence[str], vectors: Vectors) -> dict[str, np.ndarray]:
    """Rows by their text."""
    return {text: vectors[number] for number, text in enumerate(texts)}
