"""How many requests may be at the remote server, and whether it is left alone for a while. Pure: times and counts.

Rules: a door that opens at once or not at all: nobody waits here. While the remote does not work, one request per pause
finds out whether it does again; it is the only one that may lose a connect timeout.
"""

from __future__ import annotations

from typing import Literal

from ..cache.breaker import Breaker

TRIP_AFTER = 3
"""Broken answers in a row; one refused connection is enough."""


class Visit:
    """One request at the remote. Must `leave`."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._told = False

    def answered(self, now_s: float) -> None:
        """It speaks."""
        if not self._told:
            self._told = True
            self._gate.breaker.succeeded(now_s)

    def failed(self, now_s: float, *, fatal: bool) -> None:
        """It does not, or not sensibly."""
        self._told = True
        self._gate.breaker.failed(now_s, fatal=fatal)

    def leave(self, now_s: float) -> None:
        """Its place is free. Who left before it was known whether the remote works leaves that to the next."""
        self._gate.num_visits -= 1
        if not self._told and self._gate.breaker.state == "half_open":
            self._gate.breaker.failed(now_s, fatal=True)


class Gate:
    """One per gateway."""

    def __init__(self, max_concurrent: int, pause_s: float) -> None:
        self._max = max_concurrent
        self.num_visits = 0
        self.breaker = Breaker(trip_after=TRIP_AFTER, silent_s=0.0, min_pause_s=pause_s, max_pause_s=pause_s)

    def enter(self, now_s: float) -> Visit | Literal["full", "paused"]:
        """A place, or why not."""
        if self.num_visits >= self._max:
            return "full"
        if self.breaker.state != "closed" and not self.breaker.probe(now_s):
            return "paused"
        self.num_visits += 1
        return Visit(self)
