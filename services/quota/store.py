"""The port of what keys have left. Adapters: memory_store.py (one gateway), redis_store.py (all of them).

Rules: keeps levels under names and does the sums of allowance.py in one step per call, so that any number of gateways
may take at once. Knows no key, no tenant and no request. tests/contracts/test_quota_store.py runs over both.
"""

from __future__ import annotations

from typing import Protocol

from .allowance import Allowance, Verdict


class StoreDown(Exception):
    """The store does not answer in time; nothing is known of what it counted."""


class QuotaStore(Protocol):
    """All methods are called on one event loop."""

    async def take(self, account: bytes, allowance: Allowance, num_tokens: int) -> Verdict:
        """One request of `account`, of so many tokens at most. Raises StoreDown."""
        ...

    def give(self, account: bytes, allowance: Allowance, num_tokens: int, day: int) -> None:
        """Give tokens back that were taken on `day`. Waits for nothing, never raises; may be lost with the store."""
        ...

    async def close(self) -> None:
        """Let go of connections. Idempotent."""
        ...
