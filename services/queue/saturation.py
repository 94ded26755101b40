"""How many streams an engine should hold: learnt from its own reports, never a constant.

Rules: one engine, its load reports in, a depth out; knows no bands, tenants or leases.

Three signals move the depth, as in congestion control (AIMD):
1. the engine's KV cache runs low, or it queues inside with all its slots taken: multiplicative decrease. A full KV
   cache makes it recompute, and waiting inside the engine's FIFO is what breaks priority (architecture §4);
2. the depth is used up and nothing complains: additive increase (geometric until the first complaint);
3. the gradient of throughput: with step time s(b) = a + c·b, throughput b/s(b) gains a/(a+c·b) percent per percent
   of batch. Where that elasticity falls below `MIN_ELASTICITY` a deeper batch only makes every token slower.

Beside the depth there is the intake: how many streams may wait inside for their prefill. A burst of prompts waits
there with slots free; that says nothing against the depth (a GPU that had learnt 256 was held at 18 by it), but what
comes after a burst must not stand behind it. So while streams wait, no more may than begin within two reports.
"""

from __future__ import annotations

MIN_ELASTICITY = 0.05
KV_LOW = 0.03
DECREASE = 0.85
MIN_INTAKE = 2
SLOW_START = 1.25
DECAY = 0.98
"""Weight of the past per report in the fit: 50 reports, 5 s."""


class StepTimeFit:
    """Least squares of step time on batch size, the past forgotten exponentially."""

    def __init__(self) -> None:
        self._n = self._b = self._s = self._bb = self._bs = 0.0

    def add(self, batch: int, step_s: float) -> None:
        """One report: mean step time at a batch size."""
        self._n = self._n * DECAY + 1.0
        self._b = self._b * DECAY + batch
        self._s = self._s * DECAY + step_s
        self._bb = self._bb * DECAY + batch * batch
        self._bs = self._bs * DECAY + batch * step_s

    def _line(self) -> tuple[float, float] | None:
        """a and c of s(b) = a + c·b, both positive; None while the data cannot tell."""
        if self._n < 10.0:
            return None
        mean_b, mean_s = self._b / self._n, self._s / self._n
        variance = self._bb / self._n - mean_b * mean_b
        if variance < 1.0:
            return None
        slope = (self._bs / self._n - mean_b * mean_s) / variance
        fixed = mean_s - slope * mean_b
        return (fixed, slope) if slope > 0.0 and fixed > 0.0 else None

    def knee(self) -> float | None:
        """Batch size at which elasticity falls to MIN_ELASTICITY; None while the data cannot tell."""
        line = self._line()
        return line[0] * (1.0 / MIN_ELASTICITY - 1.0) / line[1] if line is not None else None

    def at(self, batch: int) -> float:
        """Step time to expect at a batch size; the mean while the data cannot tell, infinite without any."""
        line = self._line()
        if line is not None:
            return line[0] + line[1] * batch
        return self.mean_step_s or float("inf")

    @property
    def mean_step_s(self) -> float:
        return self._s / self._n if self._n else 0.0


class DepthModel:
    """The learnt depth of one engine. `depth` is what the queue may keep there, lookahead included."""

    def __init__(self, max_num_seqs: int) -> None:
        self.max_num_seqs = max_num_seqs
        self.fit = StepTimeFit()
        self.lookahead = 0
        self._limit = max(1.0, max_num_seqs / 2)
        self._intake = max_num_seqs
        self._running = 0
        self._ended = 0
        self._slow_start = True
        self._waits = False
        self._complaints = 0
        self._mean_lease_s = 0.0

    @property
    def depth(self) -> int:
        return min(int(self._limit) + self.lookahead, self._running + self._intake)

    def lease_ended(self, held_s: float) -> None:
        """A stream ran for `held_s`: tells how often a slot turns over."""
        self._ended += 1
        if held_s > 0.0:
            self._mean_lease_s += (held_s - self._mean_lease_s) * (0.05 if self._mean_lease_s else 1.0)

    def report(
        self, running: int, waiting: int, kv_free_share: float, step_s: float, peak_leases: int
    ) -> None:
        """One load report. `peak_leases` is the most leases since the last one: whether the depth was used."""
        if step_s > 0.0 and running > 0:
            self.fit.add(running, step_s)
        self._look_ahead()
        waited, self._waits = self._waits, waiting > self.lookahead + 1
        waits = waited and self._waits  # one report may catch streams that arrived within the running step
        began, self._running, self._ended = running - self._running + self._ended, running, 0
        self._intake = max(MIN_INTAKE, 2 * began) if waits else min(self.max_num_seqs, 2 * self._intake)
        crowded = (waits and running >= self.max_num_seqs) or (kv_free_share < KV_LOW and running > 1)
        self._complaints = self._complaints + 1 if crowded else 0
        knee = self.fit.knee()
        ceiling = float(self.max_num_seqs) if knee is None else max(1.0, min(float(self.max_num_seqs), knee))
        if self._complaints >= 2:
            self._limit = max(1.0, min(self._limit, float(max(1, running))) * DECREASE)
            self._slow_start = False
            self._complaints = 0
        elif self._limit > ceiling:
            self._limit = max(ceiling, self._limit * 0.95)
            self._slow_start = False
        elif not crowded and peak_leases >= int(self._limit):
            grown = self._limit * SLOW_START if self._slow_start else self._limit + 1.0
            self._limit = min(ceiling, max(grown, self._limit + 1.0))

    def _look_ahead(self) -> None:
        """Streams that wait inside the engine for less than one step, so that a freed slot is refilled by the next
        step (Little: turnover rate times one step). At most a sixteenth: who is urgent must pause all of them."""
        if self._mean_lease_s > 0.0 and self.fit.mean_step_s > 0.0:
            bubble = self._limit * self.fit.mean_step_s / self._mean_lease_s
            self.lookahead = min(int(bubble), max(1, int(self._limit) // 16))
