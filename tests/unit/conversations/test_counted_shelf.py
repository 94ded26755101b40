"""What became of work on kept responses, as metrics show it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from services.cache.key import CacheKeys
from services.cache.store import Ticket
from services.clock import VirtualClock
from services.config import ConversationsConfig
from services.conversations.counted import CountedShelf
from services.conversations.memory_store import MemoryTurnStore
from services.conversations.shelf import RECORD_BYTES
from services.errors import RequestError, ServiceError
from services.telemetry import names
from services.telemetry.kept_metrics import KeptFigures
from services.telemetry.metrics import Metrics

ITEMS: list[dict[str, Any]] = [{"type": "message", "role": "user", "content": "Hi"}]


class SlowStore(MemoryTurnStore):
    """Takes a tenth of a second to find something; says nothing while it is away."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(clock=clock)
        self.clock, self.away = clock, False

    async def used(self, tag: bytes, windows: Sequence[int]) -> int | None:
        self.clock.advance(0.1)
        return None if self.away else await super().used(tag, windows)

    async def put(self, ticket: Ticket, value: bytes, ttl_s: float) -> bool:
        return False if self.away else await super().put(ticket, value, ttl_s)


def test_every_work_is_counted_by_what_became_of_it() -> None:
    async def go() -> None:
        clock, metrics = VirtualClock(), Metrics(names.GATEWAY_METRICS)
        store = SlowStore(clock)
        shelf = CountedShelf(ConversationsConfig(store="asked"), CacheKeys(bytes(32)), store, clock)
        figures = KeptFigures(metrics)
        shelf.on_done, shelf.on_bytes = figures.done, figures.bytes

        def count(operation: str, became: str) -> float:
            return metrics.number(names.KEPT, operation, became).value

        place = await shelf.reserve("acme", "", "")
        place = await shelf.begin(place, ITEMS, (), {"object": "response"}, 60.0)
        whole = {
            "id": place.response_id,
            "status": "completed",
            "output": [],
            "created_at": int(clock.wall_s()),
        }
        assert await shelf.finish(place, whole)
        await shelf.get("acme", place.response_id)
        await shelf.chain("acme", place.response_id, cut=False)
        for operation in ("reserve", "begin", "finish", "get", "continue"):
            assert count(operation, "done") == 1, operation
        taken = metrics.histogram(names.KEPT_SECONDS, "reserve")
        assert sum(taken.counts) == 1 and taken.total == pytest.approx(0.1)
        kept = metrics.number(names.KEPT_BYTES, "kept").value
        assert kept > RECORD_BYTES

        await shelf.delete("acme", place.response_id)
        assert count("delete", "done") == 1
        assert metrics.number(names.KEPT_BYTES, "deleted").value == kept
        with pytest.raises(RequestError):
            await shelf.get("acme", place.response_id)
        assert (count("get", "done"), count("get", "refused")) == (1, 1)
        assert not await shelf.finish(place, whole)  # deleted meanwhile
        assert (count("finish", "done"), count("finish", "lost")) == (1, 1)
        store.away = True
        with pytest.raises(ServiceError):
            await shelf.reserve("acme", "", "")
        assert count("reserve", "unavailable") == 1
        assert await shelf.purge("acme") and count("purge", "done") == 1

    asyncio.run(go())
