"""The gap between two tokens of a stream, worked out once for all streams of an engine's step. Pure."""

from __future__ import annotations

from bisect import bisect_left

from ..telemetry.names import ITL_BOUNDS_S


class Pace:
    """A gap between two tokens, told from the times of the two frames that brought them, and where it is counted. All
    streams of an engine's step waited alike: one of them works it out, the others find it here."""

    __slots__ = ("bucket", "from_s", "gap_s", "to_s")

    def __init__(self) -> None:
        self.from_s = self.to_s = self.gap_s = 0.0
        self.bucket = 0

    def measure(self, from_s: float, to_s: float) -> None:
        self.from_s, self.to_s, self.gap_s = from_s, to_s, to_s - from_s
        self.bucket = bisect_left(ITL_BOUNDS_S, self.gap_s)
