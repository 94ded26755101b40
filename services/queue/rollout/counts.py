"""What became of one revision's streams, counted as the queue hears of it.

Rules: counters that only grow; no judgement (verdict.py). The time to the first token is seen from the queue: from the
grant to the first word of the gateway that tokens came, so up to a tenth of a second late, the same for every revision.
A stream that was called back, cancelled or handed back by an engine that drains says nothing about its revision, nor
does the first token of a stream that goes on after a move.
"""

from __future__ import annotations

from .verdict import NUM_BOUNDS, Counts, bucket

LOST = "lost"
"""Outcome of a Release: the engine lost the stream, or gave it up."""


class EndCounts:
    """See the module."""

    __slots__ = ("bad", "ended", "first")

    def __init__(self) -> None:
        self.ended = 0
        self.bad = 0
        self.first = [0] * (NUM_BOUNDS + 1)

    def token(self, ttft_s: float) -> None:
        """A fresh stream gave its first token."""
        self.first[bucket(ttft_s)] += 1

    def end(self, outcome: str) -> None:
        """A lease came back."""
        if outcome == "completed":
            self.ended += 1
        elif outcome == LOST:
            self.ended += 1
            self.bad += 1

    def frozen(self, silent_s: tuple[float, ...] = ()) -> Counts:
        """As a value; `silent_s` of streams that wait for their first token."""
        return Counts(self.ended, self.bad, tuple(self.first), silent_s)
