"""Keeps another deployment's figures (the queue's, the cache's) fresh for a gateway's metrics page.

Rules: a loop around queue_metrics.py or cache_metrics.py; knows neither Ray nor the queue, only a callable that fetches
snapshots. A queue that is away has no figures: old ones would look like a queue that stands still.
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

Fetch = Callable[[], Awaitable[Sequence[Mapping[str, Any]]]]
"""The snapshots of all models, as plain data. May raise while the queue is away."""
Families = Callable[[Any], Sequence[FamilySample]]
"""Figures of what was fetched."""


class QueueWatch:
    """`run` as a task; `families` at each scrape."""

    def __init__(
        self,
        fetch: Callable[[], Awaitable[Any]],
        every_s: float = EVERY_S,
        of: Families = queue_families,
        whose: str = "the queue",
    ) -> None:
        self._fetch, self._every_s, self._of, self._whose = fetch, every_s, of, whose
        self._families: Sequence[FamilySample] = ()
        self._away = False

    def families(self) -> Sequence[FamilySample]:
        """What was fetched last; empty while the queue is away."""
        return self._families

    async def run(self) -> None:
        """Fetch for ever."""
        while True:
            await self.fetch()
            await asyncio.sleep(self._every_s)

    async def fetch(self) -> None:
        """Fetch once. Never raises: figures are not worth a failure."""
        try:
            self._families = self._of(await self._fetch())
            self._away = False
        except Exception as error:
            self._families = ()
            if not self._away:
                log.warning("%s's figures are out of reach: %s", self._whose, error)
            self._away = True
