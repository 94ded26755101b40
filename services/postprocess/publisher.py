"""Keeps the current policy and hands it to gateways: at once to who has another one, later to who waits for a
change.

Rules: the shell without Ray (deployment.py wraps it); knows no gateway. One asyncio loop, no locks.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from ..config import PostprocessConfig
from ..errors import ConfigError
from .policy import Policy, configured_policy

log = logging.getLogger(__name__)

MAX_WAIT_S = 60.0
LOOK_EVERY_S = 5.0


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


class WordFileWatch:
    """Publishes the configured policy anew whenever its word list was edited: lists are updated weekly or
    sooner (GB/T 45654), and nothing should have to restart for that. A list that cannot be read leaves things
    as they are.
    """

    def __init__(self, config: PostprocessConfig, publish: Callable[[Policy], object]) -> None:
        self._config, self._publish = config, publish
        self._seen = self._stamp()

    async def run(self) -> None:
        """Look every five seconds, for ever. Returns at once when there is no list."""
        while self._config.blocked_words_file:
            await asyncio.sleep(LOOK_EVERY_S)
            self.look()

    def look(self) -> None:
        """Look once. Never raises."""
        stamp = self._stamp()
        if stamp == self._seen or stamp is None:
            return
        try:
            policy = configured_policy(self._config)
        except ConfigError as error:
            log.error("the word list stays as it was: %s", error)
            return
        self._seen = stamp
        self._publish(policy)
        log.info("the word list has %d words now", len(policy.words))

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            found = Path(self._config.blocked_words_file).stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino
