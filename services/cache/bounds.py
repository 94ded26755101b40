"""How wrong may we be? Exact binomial bounds (Clopper and Pearson, 1934). Pure arithmetic."""

from __future__ import annotations

import math


def at_most(num_wrong: int, num: int, rate: float) -> float:
    """P(at most `num_wrong` wrong of `num`) when each is wrong with probability `rate`."""
    if num_wrong >= num or rate <= 0.0:
        return 1.0
    if rate >= 1.0:
        return 0.0
    log_rate, log_rest = math.log(rate), math.log1p(-rate)
    total, log_choose = 0.0, 0.0
    for wrong in range(num_wrong + 1):
        if wrong:
            log_choose += math.log((num - wrong + 1) / wrong)
        total += math.exp(log_choose + wrong * log_rate + (num - wrong) * log_rest)
    return min(1.0, total)


def upper_bound(num_wrong: int, num: int, confidence: float = 0.95) -> float:
    """The largest rate that `num_wrong` of `num` do not refute at this confidence; 1.0 when nothing is known."""
    if num == 0 or num_wrong >= num:
        return 1.0
    low, high = num_wrong / num, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        if at_most(num_wrong, num, middle) > 1.0 - confidence:
            low = middle
        else:
            high = middle
    return high
