"""When to stop asking a store that does not answer, and when to try again. Pure: times and verdicts.

Rules: knows nothing of stores. Closed lets everything through. It opens when the connection is lost, or after
`trip_after` failures in a row that span at least `silent_s`: each failure is bounded anyway, and on a starved host
three late answers in a row are ordinary, also after a time in which nobody asked. While open nobody pays anything;
after a pause one probe (half-open) decides. The pause doubles while the circuit trips again soon after closing, so that
a store which answers probes but not work is asked for `silent_s` per pause, and never exceeds `max_pause_s`, so that
hits are back within seconds.
"""

from __future__ import annotations

from typing import Literal


class Breaker:
    """One circuit. Times are `now_s` of any one clock."""

    def __init__(
        self,
        *,
        trip_after: int = 3,
        silent_s: float = 0.1,
        min_pause_s: float = 0.1,
        max_pause_s: float = 2.0,
    ) -> None:
        self.state: Literal["closed", "open", "half_open"] = "closed"
        self.num_trips = 0
        self._trip_after, self._silent_s = trip_after, silent_s
        self._min_pause_s, self._max_pause_s = min_pause_s, max_pause_s
        self._pause_s = min_pause_s
        self._failures = 0
        self._failing_s = float("-inf")
        self._closed_s = float("-inf")
        self._retry_s = 0.0

    def succeeded(self, now_s: float) -> None:
        """An answer came in time."""
        self._failures = 0
        if self.state == "half_open":
            self.state, self._closed_s = "closed", now_s

    def failed(self, now_s: float, *, fatal: bool = False) -> bool:
        """No answer in time, or (`fatal`) no connection. True when this opened the circuit."""
        self._failures += 1
        if self._failures == 1:
            self._failing_s = now_s
        if self.state == "open":
            return False
        enough = self._failures >= self._trip_after and now_s - self._failing_s >= self._silent_s
        if self.state == "closed" and not fatal and not enough:
            return False
        relapse = self.state == "half_open" or now_s - self._closed_s < 2 * self._max_pause_s
        self._pause_s = min(self._pause_s * 2, self._max_pause_s) if relapse else self._min_pause_s
        self.state, self._retry_s, self._failures = "open", now_s + self._pause_s, 0
        self.num_trips += 1
        return True

    def wait_s(self, now_s: float) -> float:
        """Seconds until a probe is due (0: now, or the circuit is not open)."""
        return max(0.0, self._retry_s - now_s) if self.state == "open" else 0.0

    def probe(self, now_s: float) -> bool:
        """Ask for the one probe of a pause. True: send it, and report `succeeded` or `failed`."""
        if self.state != "open" or now_s < self._retry_s:
            return False
        self.state = "half_open"
        return True
