"""Deadlines while waiting: when an answer must begin to be complete in time, and when that moment has passed.

Rules: estimates waits and remembers who is to be looked at when; refuses nobody itself. Estimates for refusal are lower
bounds (nobody is refused who had a chance), those for `Retry-After` are means.
"""

from __future__ import annotations

from collections import deque

from .entry import Entry
from .wheel import TimerWheel

RATE_MEMORY_S = 3.0
MAX_RETRY_S = 600.0
MIN_RETRY_S = 0.1
TRUSTED_WINDOWS = 8
"""Busy half-seconds after which the best rate seen says something about the best there is."""
BEST_OF = 4
"""Half-seconds over which the best rate is taken. Over one alone it was twice the mean (prompts are charged when
granted, tokens when told), and twice as much was let in as could be done."""


WORST_OF_BEST = 4.0
"""A rate below this part of the best one is an outage or its end, and says nothing of how long work takes after it."""


class ServiceRate:
    """Weighted tokens served per second, learnt while somebody waited (an idle mesh says nothing of its speed)."""

    def __init__(self) -> None:
        self.cost = 0.0
        """Weighted tokens served since the last look; whoever serves adds here."""
        self._since_s: float | None = None
        self._windows = 0
        self._slots = 0
        self._best_per_slot = 0.0
        self._lately: deque[tuple[float, float]] = deque(maxlen=BEST_OF)
        self.per_s = 0.0
        self._told_per_s = 0.0
        self.best_per_s = 0.0
        """What the slots of now could do at best; 0 while unknown. A mesh that has just begun, or lost its engines
        for a while, has shown nothing yet: refusing by that would refuse those who have every chance."""

    def tick(self, now_s: float, busy: bool, slots: int = 1, told_per_s: float = 0.0) -> None:
        """Call on every tick; `busy`: requests waited all the time since the last. `slots`: capacity now.
        `told_per_s`: what the slots serve by the step times that engines report, 0 while unknown."""
        self._look(now_s, busy, slots)
        self._told_per_s = told_per_s
        self.best_per_s = self._best_per_slot * self._slots if self._windows >= TRUSTED_WINDOWS else 0.0

    def _look(self, now_s: float, busy: bool, slots: int) -> None:
        if not slots:  # an outage says nothing of the speed after it
            self._since_s = None
            return
        if slots < self._slots and self._windows:
            slots = self._slots  # what is down may be back before the deadline
        if self._since_s is None or not busy or slots > self._slots:
            self._since_s, self.cost, self._slots = now_s, 0.0, slots
            return
        span_s = now_s - self._since_s
        if span_s < 0.5:  # progress comes in bursts of 100 ms
            return
        rate = self.cost / span_s
        self._windows += 1
        new = min(1.0, max(span_s / RATE_MEMORY_S, 1.0 / self._windows))
        self.per_s += new * (rate - self.per_s)
        self._lately.append((self.cost, span_s * self._slots))
        slots_s = sum(row[1] for row in self._lately)
        if slots_s and len(self._lately) == BEST_OF:
            lately = sum(row[0] for row in self._lately) / slots_s
            self._best_per_slot = max(lately, self._best_per_slot * 0.99)
        self._since_s, self.cost = now_s, 0.0

    def least_wait_s(self, cost: float) -> float:
        """No less than this passes until `cost` is served (0 while unknown)."""
        best_per_s = self.best_per_s
        return cost / best_per_s if best_per_s > 0.0 else 0.0

    def retry_after_s(self, cost: float) -> float:
        """When to come back if `cost` stands before you; negative: no estimate. In the first seconds in which anybody
        waits prompts are computed and hardly a token is told: what was measured then would say ten minutes for what
        takes ten seconds, so engines' reports are asked instead."""
        if self._windows < TRUSTED_WINDOWS:
            per_s = self._told_per_s
        else:
            per_s = max(self.per_s, self.best_per_s / WORST_OF_BEST)
        if per_s <= 0.0:
            return -1.0
        return min(MAX_RETRY_S, max(MIN_RETRY_S, cost / per_s))


class DeadlineWatch:
    """Waiting entries by the time at which they are to be looked at: when their answers, as far as could be told then,
    can no longer be complete by their deadlines."""

    def __init__(self) -> None:
        self._wheel: TimerWheel[Entry] = TimerWheel()

    def add(self, entry: Entry, when_s: float) -> None:
        deadline_s = entry.deadline_s
        entry.deadline_slot = self._wheel.add(when_s if when_s < deadline_s else deadline_s, entry)

    def remove(self, entry: Entry) -> None:
        self._wheel.remove(entry.deadline_slot, entry)

    def expired(self, now_s: float, budget: int) -> list[Entry]:
        """Entries whose time has come, at most `budget`, forgotten here."""
        return self._wheel.due(now_s, budget)

    def items(self) -> list[Entry]:
        """All watched entries, in no order."""
        return self._wheel.items()
