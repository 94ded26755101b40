"""A connection to Redis or Valkey that a task keeps: what stores over it have in common.

Rules: start and end; when to connect again, and what a loss means, is each store's own.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from contextlib import suppress

from .redis_wire import RedisWire, WireError


class KeptWire(ABC):
    """`_wire` is None while there is no connection."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._wire: RedisWire | None = None
        self._keeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Try to connect once, then keep trying beside. Raises ValueError for a URL that is none."""
        with suppress(WireError):
            await self._connect()
        self._keeper = asyncio.create_task(self._keep())

    async def close(self) -> None:
        """Connect no more. Idempotent."""
        if self._keeper is not None:
            self._keeper.cancel()
            self._keeper = None
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    @abstractmethod
    async def _connect(self) -> None:
        """Set `_wire` to a connection that is ready. Raises WireError."""

    @abstractmethod
    async def _keep(self) -> None:
        """Connect again whenever the connection is lost; never returns."""
