"""Do two answers say the same? Pure: what verifies a semantic hit. Texts in, a verdict or a question for the embedder
out.

Rules: knows answers and no requests. Errs on the side of no: an answer that is judged wrong costs a generation later,
one that is judged right and is not costs a wrong hit. Two answers are the same when they ended the same way and

1. they are the same words (case and spacing apart), or
2. nothing that must be equal differs (guards.py: numbers, names, dates, negation, …) and their embeddings are at least
   `ALIKE`.

The bound that a tenant sets is a bound on what this judges wrong.
"""

from __future__ import annotations

from typing import NamedTuple

from .guards import compatible, marks_of

ALIKE = 0.9
MAX_JUDGED_CHARS = 1000
"""Longer answers are only the same when their words are: an embedding would not see their end."""


class Said(NamedTuple):
    """One answer as far as it is compared."""

    text: str
    finish: str


def judge(kept: Said, new: Said) -> bool | None:
    """Are they the same? None: as far as their embeddings are alike (`alike`)."""
    if kept.finish != new.finish:
        return False
    if _plain(kept.text) == _plain(new.text):
        return True
    if max(len(kept.text), len(new.text)) > MAX_JUDGED_CHARS:
        return False
    return None if compatible(marks_of(kept.text), marks_of(new.text)) else False


def alike(similarity: float) -> bool:
    """The same, where words alone did not tell?"""
    return similarity >= ALIKE


def _plain(text: str) -> str:
    return " ".join(text.lower().split())
