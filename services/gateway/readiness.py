"""Is this gateway ready? Pure: only tokens that moved count, never a process that merely answers.

Rules: events with times in, a verdict out. A canary request runs through the whole graph when nothing else did for
`proof_s`; without a fresh proof the gateway says no (vllm#39863, #46370: health endpoints that lie).
"""

from __future__ import annotations

CANARY_EVERY_S = 2.0
PROOF_S = 10.0


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
