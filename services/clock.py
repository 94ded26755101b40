"""Time as a port: cores take `now_s` as a value, shells read it here.

Rules: nothing but a shell calls `time`. Times are monotonic seconds of *this* process and never cross a process
boundary: what travels is an age or a remainder (`age_s`, `remaining_s`), so hosts whose clocks disagree by
seconds agree about deadlines (issue: clocks that disagree between hosts).
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Reads time. No side effects."""

    def now_s(self) -> float:
        """Monotonic seconds; only differences mean anything."""
        ...

    def wall_s(self) -> float:
        """Seconds since the Unix epoch, for people and logs only."""
        ...


class SystemClock:
    """The machine's clocks."""

    # The functions themselves: a request reads the time ten times.
    now_s = staticmethod(time.monotonic)
    wall_s = staticmethod(time.time)


class VirtualClock:
    """A clock that moves only when told, for the twin and the tests."""

    def __init__(self, start_s: float = 0.0, wall_offset_s: float = 1_700_000_000.0) -> None:
        self._now_s = start_s
        self._wall_offset_s = wall_offset_s

    def now_s(self) -> float:
        return self._now_s

    def wall_s(self) -> float:
        return self._now_s + self._wall_offset_s

    def advance(self, by_s: float) -> float:
        """Move forward by `by_s` seconds (≥ 0) and return the new time. Raises ValueError on a step back."""
        if by_s < 0:
            raise ValueError(f"time does not run backwards: {by_s}")
        self._now_s += by_s
        return self._now_s
