"""How full engines may be beside a band that wants short steps: `max_slowdown` of its settings.

Rules: bands, times and the fit of one engine's steps in, a bound on streams out; grants and pauses nobody.

A stream that begins beside a full batch waits for the rest of a step and shares the next one: on engines whose steps
grow with the batch (CPUs; GPUs beyond some hundred streams) that is a multiple of what it takes alone, and no order of
requests can help. A band with `max_slowdown` s > 1 is promised that a step takes at most s times as long as that of one
stream, s(b) = a + c·b ≤ s·(a + c), as the engine's own reports tell a and c. The promise binds lower bands only, and
only while the band has traffic: LATELY_S after its last request, engines are filled as far as throughput gains again.

While a, c cannot be told (nothing was measured yet, or the batch did not vary lately) the last bound known holds for
KNOWN_S, and then none: the batch grows, which tells.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..config import BandConfig
from .saturation import StepTimeFit

LATELY_S = 10.0
KNOWN_S = 30.0
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

    __slots__ = ("_known_s", "streams")

    def __init__(self) -> None:
        self.streams = UNBOUNDED
        self._known_s = float("-inf")

    def look(self, fit: StepTimeFit, slowdown: float, now_s: float) -> None:
        """A report came; `slowdown` 0: no bound."""
        batch = fit.within(slowdown) if slowdown else None
        if batch is not None:
            self.streams, self._known_s = max(1, int(batch)), now_s
        elif not slowdown or now_s - self._known_s > KNOWN_S:
            self.streams = UNBOUNDED
