"""Figures of kept responses, as the shelf of a gateway tells them. Pure; knows nothing of the shelf but its words."""

from __future__ import annotations

from . import names
from .metrics import Metrics


class KeptFigures:
    """Counts into a gateway's own families."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def done(self, operation: str, became: str, taken_s: float) -> None:
        """A piece of work ended."""
        self._metrics.number(names.KEPT, operation, became).value += 1
        self._metrics.histogram(names.KEPT_SECONDS, operation).observe(taken_s)

    def bytes(self, num_bytes: int) -> None:
        """So many were kept; negative: deleted."""
        change = "kept" if num_bytes > 0 else "deleted"
        self._metrics.number(names.KEPT_BYTES, change).value += abs(num_bytes)
