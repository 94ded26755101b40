"""Another deployment's figures (the queue's, the cache's) for a gateway's metrics page, fetched when it is asked for.

Rules: around queue_metrics.py or cache_metrics.py; knows neither Ray nor the queue, only a callable that fetches
snapshots. Nothing is fetched for nobody: a handle call costs the caller memory for a while (docs/benchmarks). A queue
that is away has no figures: old ones would look like a queue that stands still.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from .metrics import FamilySample
from .queue_metrics import queue_families

log = logging.getLogger(__name__)
EVERY_S = 2.0
"""However often the page is asked for, figures are fetched no more often."""
WITHIN_S = 1.0
"""A page waits for figures no longer."""

Fetch = Callable[[], Awaitable[Sequence[Mapping[str, Any]]]]
"""The snapshots of all models, as plain data. May raise while the queue is away."""
Families = Callable[[Any], Sequence[FamilySample]]
"""Figures of what was fetched."""


class QueueWatch:
    """`refresh` before each scrape, `families` at it."""

    def __init__(
        self, fetch: Callable[[], Awaitable[Any]], of: Families = queue_families, whose: str = "the queue"
    ) -> None:
        self._fetch, self._of, self._whose = fetch, of, whose
        self._families: Sequence[FamilySample] = ()
        self._asked_s = float("-inf")
        self._away = False

    def families(self) -> Sequence[FamilySample]:
        """What was fetched last; empty while the queue is away."""
        return self._families

    async def refresh(self) -> None:
        """Fetch, unless somebody did just now. Never raises."""
        now_s = asyncio.get_running_loop().time()
        if now_s - self._asked_s >= EVERY_S:
            self._asked_s = now_s
            await self.fetch()

    async def fetch(self) -> None:
        """Fetch once. Never raises: figures are not worth a failure."""
        try:
            async with asyncio.timeout(WITHIN_S):
                self._families = self._of(await self._fetch())
            self._away = False
        except Exception as error:
            self._families = ()
            if not self._away:
                log.warning("%s's figures are out of reach: %s", self._whose, error)
            self._away = True
