"""A family of questions: several patterns with one meaning, and slot values that change it."""

from __future__ import annotations

from typing import NamedTuple


class Family(NamedTuple):
    """`values` are separated by |; each makes an intent with all `patterns` as its paraphrases."""

    values: str
    patterns: tuple[str, ...]

    def intents(self) -> list[tuple[str, ...]]:
        """The paraphrases of every intent of this family."""
        return [tuple(pattern.format(value) for pattern in self.patterns) for value in self.values.split("|")]
