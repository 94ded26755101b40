"""Asking every gateway what it still holds under a purge scope, and waiting for all of them.

Rules: the Cache's side of CacheLook and CacheHeld (link/cache_messages.py); decides nothing. Links are in order: who
answers has run every purge that was sent before the question.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from itertools import count

from ..link.asyncio_link import Link
from ..link.cache_messages import CacheHeld, CacheLook


class RollCall:
    """`links` are the gateways that are there. All methods on one event loop."""

    def __init__(self, links: Iterable[Link]) -> None:
        self._links, self._ids = links, count(1)
        self._asked: dict[tuple[Link, int], asyncio.Future[int | None]] = {}

    async def ask(self, scope: bytes, within_s: float = 5.0) -> list[int | None]:
        """Answers that each gateway would still give or keep; None: it did not say. A gateway that is not
        linked serves nothing from its memory, and forgets all of it before it does again (CacheHello)."""
        ask_id, futures = next(self._ids), list[asyncio.Future[int | None]]()
        for link in self._links:
            answer: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
            self._asked[link, ask_id] = answer
            futures.append(answer)
            link.send(CacheLook(ask_id, scope.hex()))
        if futures:
            await asyncio.wait(futures, timeout=within_s)
        for member in [member for member in self._asked if member[1] == ask_id]:
            del self._asked[member]
        return [answer.result() if answer.done() else None for answer in futures]

    def told(self, link: Link, held: CacheHeld) -> None:
        """One gateway's answer."""
        if (answer := self._asked.get((link, held.ask_id))) is not None and not answer.done():
            answer.set_result(held.num)

    def down(self, link: Link) -> None:
        """It went while it was asked: it holds nothing that it would give."""
        for member, answer in self._asked.items():
            if member[0] is link and not answer.done():
                answer.set_result(0)
