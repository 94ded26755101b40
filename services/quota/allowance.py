"""What one API key may use, and what is left of it. Pure: (allowance, levels, event, now) → levels and a verdict.

Rules: no store, no clock, no request; times are Unix seconds of whoever keeps the levels, because a day is a day of the
calendar (UTC). redis_store.py has the same sums in Lua; one contract suite and one property hold both together.

Three accounts per key, each optional:

    requests_per_minute, tokens_per_minute   buckets that hold a minute's worth and fill evenly
    tokens_per_day                           begins anew at midnight, UTC

Invariants (tests/properties/test_quota.py):

1. What is refused takes nothing.
2. In any span of `s` seconds no more is granted than a full bucket and what fills it in `s`; in a day no more than the
   day's tokens.
3. Who waits as long as the refusal said, and is alone, gets what it asked for.
4. What is given back is never more than was taken: a bucket is never fuller than full.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

MINUTE_S = 60.0
DAY_S = 86_400
NO_LIMIT = 1e300
"""What a bucket without a limit holds, so that it is full when it gets one."""

What = Literal["", "requests", "tokens", "day"]


class Allowance(msgspec.Struct, frozen=True, omit_defaults=True):
    """Limits of one key; 0: none. Tokens are those of prompt and answer together."""

    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    tokens_per_day: int = 0

    @property
    def limits_anything(self) -> bool:
        """Is there anything to count?"""
        return bool(self.requests_per_minute or self.tokens_per_minute or self.tokens_per_day)

    @property
    def most_tokens(self) -> int:
        """Of one request, however long it waits; 0: any."""
        bounds = [limit for limit in (self.tokens_per_minute, self.tokens_per_day) if limit]
        return min(bounds) if bounds else 0


NOTHING_LIMITED = Allowance()


class Levels(NamedTuple):
    """What is left in both buckets as of `at_s`, and what was used on `day` (days since 1970)."""

    requests: float
    tokens: float
    at_s: float
    day: int
    day_tokens: int


class Verdict(NamedTuple):
    """`refused` names the account that is empty ("": granted); it would grant after `wait_s`. What is left is after
    this request, in whole requests and tokens (0 where there is no limit); `day` is the one on which tokens were
    taken."""

    refused: What
    wait_s: float
    requests: int
    tokens: int
    day_tokens: int
    day: int


def full(allowance: Allowance, now_s: float) -> Levels:
    """Of a key that was never seen."""
    rpm, tpm = allowance.requests_per_minute, allowance.tokens_per_minute
    return Levels(rpm or NO_LIMIT, tpm or NO_LIMIT, now_s, int(now_s // DAY_S), 0)


def filled(allowance: Allowance, levels: Levels, now_s: float) -> Levels:
    """As of now. A clock that went back fills nothing; limits may have changed since."""
    passed_s = max(0.0, now_s - levels.at_s)
    rpm, tpm = allowance.requests_per_minute, allowance.tokens_per_minute
    day = int(now_s // DAY_S)
    return Levels(
        min(rpm, levels.requests + passed_s * rpm / MINUTE_S) if rpm else NO_LIMIT,
        min(tpm, levels.tokens + passed_s * tpm / MINUTE_S) if tpm else NO_LIMIT,
        max(now_s, levels.at_s),
        day,
        levels.day_tokens if day == levels.day else 0,
    )


def take(
    allowance: Allowance, levels: Levels | None, num_tokens: int, now_s: float
) -> tuple[Levels, Verdict]:
    """One request that may use so many tokens (≥ 0, at most `most_tokens`)."""
    levels = full(allowance, now_s) if levels is None else filled(allowance, levels, now_s)
    refused, wait_s = _refusal(allowance, levels, num_tokens, now_s)
    if not refused:
        levels = levels._replace(
            requests=levels.requests - 1,
            tokens=levels.tokens - num_tokens,
            day_tokens=levels.day_tokens + num_tokens,
        )
    requests = max(0, int(levels.requests)) if allowance.requests_per_minute else 0
    tokens = max(0, int(levels.tokens)) if allowance.tokens_per_minute else 0
    today = max(0, allowance.tokens_per_day - levels.day_tokens)
    return levels, Verdict(refused, wait_s, requests, tokens, today, levels.day)


def give(allowance: Allowance, levels: Levels, num_tokens: int, day: int, now_s: float) -> Levels:
    """So many of the tokens that were taken on `day` were not used."""
    levels = filled(allowance, levels, now_s)
    return levels._replace(
        tokens=min(allowance.tokens_per_minute or NO_LIMIT, levels.tokens + num_tokens),
        day_tokens=max(0, levels.day_tokens - num_tokens) if day == levels.day else levels.day_tokens,
    )


def _refusal(allowance: Allowance, levels: Levels, num_tokens: int, now_s: float) -> tuple[What, float]:
    """The account that is empty, and for how long: the day first, which takes longest."""
    if allowance.tokens_per_day and levels.day_tokens + num_tokens > allowance.tokens_per_day:
        return "day", (levels.day + 1) * DAY_S - now_s
    if allowance.tokens_per_minute and levels.tokens < num_tokens:
        return "tokens", (num_tokens - levels.tokens) * MINUTE_S / allowance.tokens_per_minute
    if allowance.requests_per_minute and levels.requests < 1:
        return "requests", (1 - levels.requests) * MINUTE_S / allowance.requests_per_minute
    return "", 0.0
