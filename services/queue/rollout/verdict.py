"""Is the new revision as good as the old one? From counts of ended streams and of times to the first token.

Rules: pure statistics; knows no engines, no time, no state. The old revision serves beside the new one, so it is the
control: a bad hour of the cluster, or clients that send nonsense, are in both.

1. Fewer than `min_requests` streams of the new one say nothing good; ENOUGH_FAILURES may be enough to be BAD.
2. BAD: its rate of lost and failed streams, or its share of slow first tokens, is above what is allowed, with the
   confidence `confidence` (lower bound of Wilson's score interval, 1927; exact enough from a handful of events on).
3. GOOD: both are seen within what is allowed. UNSURE is the rest: above, but that may be chance. More requests tell.
4. Allowed errors: the old one's rate of the same time and `max_error_rate`. Slow: above `ttft_s`, or if that is 0
   above `ttft_factor` times the old one's p95; allowed: the old one's share of the same time and `max_slow_share`,
   because what delays everybody for a moment makes many slow at once.
"""

from __future__ import annotations

from bisect import bisect_left
from enum import StrEnum
from math import inf, sqrt
from statistics import NormalDist

import msgspec

FIRST_BOUND_S, GROWTH, NUM_BOUNDS = 0.001, 1.25, 58
TTFT_BOUNDS_S = tuple(FIRST_BOUND_S * GROWTH**i for i in range(NUM_BOUNDS))
"""1 ms to 5 min in steps of 25%: what two times to the first token must differ by to be told apart."""

ENOUGH_FAILURES = 10
"""Streams after which a revision that fails nearly all of them is taken back."""


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a new revision must meet. `ttft_s` 0: compared with the old one's."""

    min_requests: int = 50
    max_error_rate: float = 0.01
    ttft_s: float = 0.0
    ttft_factor: float = 1.5
    max_slow_share: float = 0.15
    confidence: float = 0.99


class Counts(msgspec.Struct, frozen=True):
    """What became of one revision's streams. `bad`: lost or failed by the engine; `first`: times to the first token, by
    bucket of TTFT_BOUNDS_S and above; `silent_s`: how long streams without a token have waited for one by now."""

    ended: int = 0
    bad: int = 0
    first: tuple[int, ...] = (0,) * (NUM_BOUNDS + 1)
    silent_s: tuple[float, ...] = ()

    def since(self, before: Counts) -> Counts:
        """Only what came after `before`."""
        return Counts(
            self.ended - before.ended,
            self.bad - before.bad,
            tuple(now - then for now, then in zip(self.first, before.first, strict=True)),
            self.silent_s,
        )


class Kind(StrEnum):
    TOO_FEW = "too_few"
    GOOD = "good"
    UNSURE = "unsure"
    BAD = "bad"


class Verdict(msgspec.Struct, frozen=True):
    """`why` is for people."""

    kind: Kind
    why: str


def bucket(ttft_s: float) -> int:
    """Index into Counts.first."""
    return bisect_left(TTFT_BOUNDS_S, ttft_s)


def p95_s(counts: Counts) -> float:
    """Upper bound of the bucket that holds it; 0 without data."""
    total = sum(counts.first)
    seen = 0
    for bound, number in zip((*TTFT_BOUNDS_S, inf), counts.first, strict=True):
        seen += number
        if total and seen >= 0.95 * total:
            return bound
    return 0.0


def lower_bound(bad: int, total: int, confidence: float) -> float:
    """Of a rate of which `bad` of `total` were seen: one side of Wilson's score interval."""
    if not total:
        return 0.0
    z = NormalDist().inv_cdf(confidence)
    rate, spread = bad / total, z * z / total
    return max(0.0, (rate + spread / 2 - sqrt(spread * (rate * (1 - rate) + spread / 4))) / (1 + spread))


def judge(new: Counts, beside: Counts, old: Counts, limits: Limits) -> Verdict:
    """`beside` are the old revision's counts of the same time; `old` may be of an earlier time, where it has little to
    do any more."""
    errors = _errors(new, beside, limits)
    slow = _slow(new, beside, old, limits)
    worst = max((errors, slow), key=lambda verdict: _ORDER[verdict.kind])
    return worst if worst.kind is not Kind.GOOD else Verdict(Kind.GOOD, f"{errors.why}; {slow.why}")


_ORDER = {Kind.GOOD: 0, Kind.TOO_FEW: 1, Kind.UNSURE: 2, Kind.BAD: 3}


def _errors(new: Counts, beside: Counts, limits: Limits) -> Verdict:
    allowed = limits.max_error_rate + (beside.bad / beside.ended if beside.ended else 0.0)
    told = f"{new.bad} of {new.ended} streams lost or failed, {allowed:.1%} allowed"
    return _rate(new.bad, new.ended, allowed, told, limits, min(ENOUGH_FAILURES, limits.min_requests))


def _slow(new: Counts, beside: Counts, old: Counts, limits: Limits) -> Verdict:
    limit_s = limits.ttft_s
    if not limit_s:
        if sum(old.first) < limits.min_requests:
            return Verdict(Kind.GOOD, "nothing to compare the time to the first token with")
        limit_s = limits.ttft_factor * p95_s(old)
    waiting = sum(1 for age_s in new.silent_s if age_s > limit_s)
    slow, total = slower_than(new, limit_s) + waiting, sum(new.first) + waiting
    allowed = limits.max_slow_share + slower_than(beside, limit_s) / max(1, sum(beside.first))
    told = f"{slow} of {total} first tokens after {limit_s:.2f} s, {allowed:.0%} allowed"
    return _rate(slow, total, allowed, told, limits, limits.min_requests)


def slower_than(counts: Counts, limit_s: float) -> int:
    """First tokens that surely came later."""
    return sum(counts.first[bucket(limit_s) + 1 :])


def _rate(bad: int, total: int, allowed: float, told: str, limits: Limits, least: int) -> Verdict:
    if total >= least and lower_bound(bad, total, limits.confidence) > allowed:
        return Verdict(Kind.BAD, told)
    if total < limits.min_requests:
        return Verdict(Kind.TOO_FEW, f"{told}; {limits.min_requests} streams are wanted")
    return Verdict(Kind.GOOD if bad / total <= allowed else Kind.UNSURE, told)
