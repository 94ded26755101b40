"""Load over time: how many users there are at each moment of a run.

Rules: pure functions of (second, users, length); locustfile.py wraps them. `steady` measures, `ramp` finds
the knee, `spike` tests shedding and recovery, `wave` is a day in short.
"""

from __future__ import annotations

from collections.abc import Callable
from math import cos, pi

Shape = Callable[[float, int, float], int]
"""(seconds since the start, users at the peak, length of the run in seconds) → users now."""


def steady(second: float, users: int, length_s: float) -> int:
    """All users from the first second on."""
    return users


def ramp(second: float, users: int, length_s: float) -> int:
    """From one user to all, evenly."""
    return max(1, round(users * min(1.0, second / length_s)))


def spike(second: float, users: int, length_s: float) -> int:
    """A fifth of the users; all of them in the middle fifth of the run."""
    return users if 0.4 <= second / length_s < 0.6 else max(1, users // 5)


def wave(second: float, users: int, length_s: float) -> int:
    """Two slow waves between a tenth of the users and all."""
    height = (1 - cos(4 * pi * second / length_s)) / 2
    return max(1, round(users * (0.1 + 0.9 * height)))


SHAPES: dict[str, Shape] = {"steady": steady, "ramp": ramp, "spike": spike, "wave": wave}
