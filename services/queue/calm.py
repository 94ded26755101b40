"""How full engines may be beside a band that wants short steps: `max_slowdown` of its settings.

Rules: bands, times and the fit of one engine's steps in, a bound on streams out; grants and pauses nobody.

A stream that begins beside a full batch waits for the rest of a step and shares the next one: on engines whose steps
grow with the batch (CPUs; GPUs beyond some hundred streams) that is a multiple of what it takes alone, and no order of
requests can help. A band with `max_slowdown` s > 1 is promised that a step takes at most s times as long as that of one
stream, s(b) = a + c·b ≤ s·(a + c), as the engine's own reports tell a and c. The promise binds lower bands only, and
only while the band has traffic: LATELY_S after its last request, engines are filled as far as throughput gains again.

The memory of a and c is long (DECAY), since a bound that holds keeps the batch from varying. Where they cannot
be told, because an engine was always full, half its batch for a second in every few tells.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..config import BandConfig
from .saturation import StepTimeFit

LATELY_S = 10.0
DECAY = 0.998
"""Weight of the past per report: 500 reports, 50 s."""
LEAST_VARIANCE = 0.25
TRY_EVERY_S = 6.0
TRY_S = 1.0
UNBOUNDED = 1 << 30


class Calm:
    """Which bands are to be spared long steps now."""

    def __init__(self, configs: Sequence[BandConfig]) -> None:
        self.configure(configs)
        self._until_s = [float("-inf")] * len(configs)

    def configure(self, configs: Sequence[BandConfig]) -> None:
        """New limits at run time."""
        self._slowdowns = {b: config.max_slowdown for b, config in enumerate(configs) if config.max_slowdown}

    def asked(self, band: int, now_s: float) -> None:
        """A request of the band came."""
        if band in self._slowdowns:
            self._until_s[band] = now_s + LATELY_S

    def strictest(self, now_s: float) -> tuple[int, float]:
        """Index of the lowest band that is spared, and the slowdown that holds; (-1, 0.0): no bound."""
        lowest, least = -1, 0.0
        for band, slowdown in self._slowdowns.items():
            if now_s < self._until_s[band]:
                lowest, least = band, min(least or slowdown, slowdown)
        return lowest, least


class CalmDepth:
    """The bound of one engine."""

    __slots__ = ("_fit", "_half", "_unknown_s", "streams")

    def __init__(self) -> None:
        self.streams = UNBOUNDED
        self._fit = StepTimeFit(DECAY, LEAST_VARIANCE)
        self._half = 0
        self._unknown_s = 0.0

    def look(self, running: int, step_s: float, slowdown: float, now_s: float) -> None:
        """A report came: mean step time at a batch. `slowdown` 0: no bound."""
        if running > 0 and step_s > 0.0:
            self._fit.add(running, step_s)
        batch = self._fit.within(slowdown) if slowdown else float("inf")
        if batch is not None:
            self.streams, self._half = max(1, int(min(batch, UNBOUNDED))), 0
            return
        if not self._half:
            self._half, self._unknown_s = max(1, running // 2), now_s
        trying = (now_s - self._unknown_s) % TRY_EVERY_S < TRY_S
        self.streams = self._half if trying else UNBOUNDED
