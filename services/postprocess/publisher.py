"""Keeps the current policy and hands it to gateways: at once to who has another one, later to who waits for a
change.

Rules: the shell without Ray (deployment.py wraps it); knows no gateway. One asyncio loop, no locks.
"""

from __future__ import annotations

import asyncio

from .policy import Policy

MAX_WAIT_S = 60.0


class PolicyPublisher:
    """The authority on the policy. A gateway loops `policy(known_version, wait_s)` and compiles what it
    gets."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._version = policy.version
        self._changed = asyncio.Event()

    @property
    def version(self) -> str:
        """Version of the current policy."""
        return self._version

    async def policy(self, known_version: str = "", wait_s: float = 0.0) -> Policy | None:
        """The current policy, or None when it is the known one and stayed so for `wait_s` seconds (at most
        60)."""
        if known_version == self._version and wait_s > 0:
            try:
                await asyncio.wait_for(self._changed.wait(), min(wait_s, MAX_WAIT_S))
            except TimeoutError:
                return None
        return self._policy if known_version != self._version else None

    def set_policy(self, policy: Policy) -> str:
        """Swap the policy for every gateway that asks or waits; streams that run are not touched. Returns its
        version."""
        version = policy.version
        if version != self._version:
            self._policy, self._version = policy, version
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()
        return version
