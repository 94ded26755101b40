"""What keys have left, in this process: for a gateway alone, for tests, and while Redis is away."""

from __future__ import annotations

from ..clock import Clock, SystemClock
from . import allowance as sums
from .allowance import Allowance, Levels, Verdict


class MemoryQuotaStore:
    """A QuotaStore. Accounts are as many as keys: they are kept."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._wall_s = (clock or SystemClock()).wall_s
        self._levels: dict[bytes, Levels] = {}

    async def take(self, account: bytes, allowance: Allowance, num_tokens: int) -> Verdict:
        now_s = self._wall_s()
        levels, verdict = sums.take(allowance, self._levels.get(account), num_tokens, now_s)
        self._levels[account] = levels
        return verdict

    def give(self, account: bytes, allowance: Allowance, num_tokens: int, day: int) -> None:
        if (levels := self._levels.get(account)) is not None:
            self._levels[account] = sums.give(allowance, levels, num_tokens, day, self._wall_s())

    async def close(self) -> None:
        self._levels.clear()
