"""How long one answer is waited for, by a clock that does not stand still. Pure: times in, waits out.

Rules: knows no store, no link, no event loop. Whoever owns a timer asks `more_s` when it comes, and sets it again for
as long as that says. uvloop's timers go by whole milliseconds of a clock that stands still while callbacks run: one of
1.2 ms comes after 0.05 to 1.2 ms. Taken for the bound itself, it gave up one healthy answer in twelve.

1. Nobody is given up before `bound_s` has passed, however early a timer comes.
2. A timer that comes more than `LAG_S` late means that the event loop was busy: then the answer may lie unread, and up
   to `num_graces` times `grace_s` more is waited.
3. Every wait ends: at the latest when a timer comes on time after the bound, or when the graces are used up.
"""

from __future__ import annotations

LAG_S = 0.001
"""What an idle event loop may be late by: asyncio rounds up to the next millisecond, uvloop by half of one."""
TICK_S = 1e-6
"""Less than that is not waited for."""


class Patience:
    """See the module. Times are of any one clock."""

    __slots__ = ("_due_s", "_grace_s", "_num_graces")

    def __init__(self, now_s: float, bound_s: float, *, grace_s: float, num_graces: int) -> None:
        self._due_s, self._grace_s, self._num_graces = now_s + bound_s, grace_s, num_graces

    def more_s(self, now_s: float) -> float:
        """Seconds to wait still; 0.0: that was long enough."""
        rest_s = self._due_s - now_s
        if rest_s > TICK_S:
            return rest_s
        if self._num_graces and -rest_s > LAG_S:
            self._num_graces -= 1
            self._due_s = now_s + self._grace_s
            return self._grace_s
        return 0.0
