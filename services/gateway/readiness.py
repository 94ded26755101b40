"""Is this gateway ready? Pure: only tokens that moved count, never a process that merely answers.

Rules: events with times in, a verdict out. A canary request runs through the whole graph when nothing else did for
`proof_s`; without a fresh proof the gateway says no (vllm#39863, #46370: health endpoints that lie).
"""

from __future__ import annotations

from itertools import count

CANARY_EVERY_S = 2.0
PROOF_S = 10.0
READING_S = 1.0
"""A tokenizer takes a third of a second to read, with a large vocabulary two."""
LONGEST_WAIT_S = 30.0
_GOLDEN = 0.6180339887498949


class Readiness:
    """Keeps the time of the last token and what is missing."""

    def __init__(self, proof_s: float = PROOF_S) -> None:
        self._proof_s = proof_s
        self._proven_s: float | None = None
        self._missing = "starting"

    def proven(self, now_s: float) -> None:
        """A token came through the whole graph."""
        self._proven_s = now_s
        self._missing = ""

    def failed(self, why: str) -> None:
        """A canary failed; `why` is shown until the next proof."""
        self._missing = why

    def wants_canary(self, now_s: float) -> bool:
        """True when the last proof is getting old."""
        return self._proven_s is None or now_s - self._proven_s >= self._proof_s / 2

    def verdict(self, now_s: float) -> tuple[bool, str]:
        """(ready, one line for people)."""
        if self._proven_s is None:
            return False, f"not ready: {self._missing}\n"
        if now_s - self._proven_s > self._proof_s:
            return False, f"not ready: no token moved for {now_s - self._proven_s:.0f} s; {self._missing}\n"
        return True, "ready\n"


class Loading:
    """When to come back to a gateway that does not know its model yet. Engines load for a second or for minutes, and
    nobody says how long it will take: what has lasted for so long is likely to last for as long again. Who asks is told
    between half and one and a half of that, each another time: all come back, but not together."""

    def __init__(self, began_s: float) -> None:
        self._began_s = began_s
        self._found = False
        self._number = count(1).__next__

    def found(self) -> None:
        """The engines have said what they serve; the tokenizer is read."""
        self._found = True

    def retry_after_s(self, now_s: float) -> float:
        """For the next who is refused."""
        waited_s = now_s - self._began_s
        expected_s = READING_S if self._found else min(max(waited_s, READING_S), LONGEST_WAIT_S)
        return expected_s * (0.5 + self._number() * _GOLDEN % 1.0)  # the golden ratio fills gaps evenly
