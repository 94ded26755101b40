"""How full engines may be beside a band that wants short steps: `max_slowdown` of its settings.

Rules: bands, times and one engine's reports in, a bound on streams out; grants and pauses nobody.

A stream that begins beside a full batch waits for the rest of a step and shares the next one: on engines whose steps
grow with the batch (CPUs; GPUs beyond some hundred streams) that is a multiple of what it takes alone, and no order of
requests can help. A band with `max_slowdown` s > 1 is promised that a step takes at most s times as long as that of one
stream, s(b) = a + c·b ≤ s·(a + c). The promise binds lower bands only, and only while the band has traffic: LATELY_S
after its last request, engines are filled as far as throughput gains again.

How steps grow is tried out, not read off: a batch that varies by itself is small just when streams end, others begin,
and their prompts make the step long, which hid on a real engine that it grows at all. So the engine is held at half its
batch for a moment when the band's traffic begins, and every TRY_EVERY_S; a line through both means tells a and c.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..config import BandConfig

LATELY_S = 10.0
TRY_EVERY_S = 30.0
TRY_S = 0.8
"""At the batch that is tried; how long it takes until enough streams have ended comes on top, TRY_MOST_S at most."""
TRY_MOST_S = 6.0
ENOUGH = 5
"""Reports at a batch, a tenth of a second each."""
KEEP = 0.97
UNBOUNDED = 1 << 30
NOBODY = -1, 0.0


class Calm:
    """Which bands are to be spared long steps now."""

    def __init__(self, configs: Sequence[BandConfig]) -> None:
        self.configure(configs)
        self._until_s = [float("-inf")] * len(configs)

    def configure(self, configs: Sequence[BandConfig]) -> None:
        """New limits at run time."""
        self.slowdowns = {b: config.max_slowdown for b, config in enumerate(configs) if config.max_slowdown}
        """By index of the bands that have one: mostly none has."""

    def asked(self, band: int, now_s: float) -> None:
        """A request of the band came."""
        if band in self.slowdowns:
            self._until_s[band] = now_s + LATELY_S

    def strictest(self, now_s: float) -> tuple[int, float]:
        """Index of the lowest band that is spared, and the slowdown that holds; (-1, 0.0): no bound."""
        if not self.slowdowns:
            return NOBODY
        lowest, least = NOBODY
        for band, slowdown in self.slowdowns.items():
            if now_s < self._until_s[band]:
                lowest, least = band, min(least or slowdown, slowdown)
        return lowest, least


class _Mean:
    """Batch and step time over the reports of one kind, the past forgotten."""

    __slots__ = ("_batch", "_step_s", "count")

    def __init__(self) -> None:
        self.count = self._batch = self._step_s = 0.0

    def add(self, batch: int, step_s: float) -> None:
        self.count = self.count * KEEP + 1.0
        self._batch = self._batch * KEEP + batch
        self._step_s = self._step_s * KEEP + step_s

    @property
    def batch(self) -> float:
        return self._batch / self.count

    @property
    def step_s(self) -> float:
        return self._step_s / self.count


class CalmDepth:
    """The bound of one engine."""

    __slots__ = ("_bound", "_held", "_level", "_there_s", "_tried", "_trying", "_until_s", "streams")

    def __init__(self) -> None:
        self.streams = UNBOUNDED
        self._bound = UNBOUNDED
        self._held, self._tried = _Mean(), _Mean()
        self._trying = False
        self._level = 0
        self._there_s = 0.0
        self._until_s = float("-inf")

    def look(self, running: int, step_s: float, slowdown: float, now_s: float) -> None:
        """A report came: mean step time at a batch. `slowdown` 0: no bound."""
        if not slowdown:
            self.streams, self._trying = UNBOUNDED, False
        elif self._trying:
            self._try(running, now_s)
        elif now_s >= self._until_s and running > 1:
            self._trying, self._level = True, running // 2
            self._there_s, self._until_s = float("inf"), now_s + TRY_MOST_S
        elif self._until_s - now_s > TRY_EVERY_S - TRY_S:
            running = 0  # it fills up again: not yet the batch that is held
        if running > 0 and step_s > 0.0:
            if not self._trying:
                self._held.add(running, step_s)
            elif running <= self._level:
                self._tried.add(running, step_s)
        if slowdown:
            self.streams = self._level if self._trying else self._bound_at(slowdown)

    def _try(self, running: int, now_s: float) -> None:
        if running <= self._level:
            self._there_s = min(self._there_s, now_s)
        if now_s - self._there_s >= TRY_S or now_s >= self._until_s:
            self._trying, self._until_s = False, now_s + TRY_EVERY_S
            self._held = _Mean()

    def _bound_at(self, slowdown: float) -> int:
        """a + c·b = slowdown·(a + c), solved for b; the last one known while the means cannot tell."""
        low, high = self._tried, self._held
        if min(low.count, high.count) >= ENOUGH and high.batch - low.batch >= 0.5:
            slope = (high.step_s - low.step_s) / (high.batch - low.batch)
            fixed = max(0.0, low.step_s - slope * low.batch)
            batch = 1.0 + (slowdown - 1.0) * (fixed + slope) / slope if slope > 0.0 else UNBOUNDED
            self._bound = max(1, int(min(batch, UNBOUNDED)))
        return self._bound
