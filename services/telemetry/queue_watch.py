"""Keeps the queue's figures fresh for a gateway's metrics page.

Rules: a loop around queue_metrics.py; knows neither Ray nor the queue, only a callable that fetches
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


class QueueWatch:
    """`run` as a task; `families` at each scrape."""

    def __init__(self, fetch: Fetch, every_s: float = EVERY_S) -> None:
        self._fetch, self._every_s = fetch, every_s
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
            self._families = queue_families(await self._fetch())
            self._away = False
        except Exception as error:
            self._families = ()
            if not self._away:
                log.warning("the queue's figures are out of reach: %s", error)
            self._away = True
