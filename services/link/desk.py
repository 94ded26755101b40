"""The serving end of calls: who is linked, which calls each link has open, and what is done on their behalf.

Rules: what an authority (services/cache, services/journal) has in common with any other and nothing of what it decides.
A call is opened by a message of its gateway under a number of the gateway's, and is over when either side says so or
the link goes down; what a call is (`C`) is its authority's business. All methods on one event loop.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Coroutine, Iterator
from typing import Generic, TypeVar

from .asyncio_link import Handler, Link, LinkServer

C = TypeVar("C")

Member = tuple[Link, int]
"""One call of one gateway."""


class Desk(Generic[C]):
    """See the module. `key` opens a link; messages and link events go to `handler`, which tells `up` and `down`."""

    def __init__(self, handler: Handler) -> None:
        self.key = secrets.token_bytes(32)
        self._server = LinkServer(handler, self.key)
        self._calls: dict[Link, dict[int, C]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, host: str, port: int) -> str:
        """Listen; returns the address for gateways. Raises OSError."""
        return await self._server.start(host, port)

    def close(self, why: str) -> None:
        """Stop listening, cut every link, give up what is under way."""
        self._server.close()
        for link in list(self._calls):
            link.close(why)
        for task in self._tasks:
            task.cancel()

    # links ---------------------------------------------------------------------------------------------

    def up(self, link: Link) -> None:
        """A gateway is there."""
        self._calls[link] = {}

    def down(self, link: Link) -> dict[int, C]:
        """It is gone: its calls are over. Returns them."""
        return self._calls.pop(link, {})

    def __len__(self) -> int:
        return len(self._calls)

    def __iter__(self) -> Iterator[Link]:
        return iter(self._calls)

    # calls ---------------------------------------------------------------------------------------------

    def open(self, member: Member, call: C) -> None:
        """A call begins. Its link must be up."""
        self._calls[member[0]][member[1]] = call

    def get(self, member: Member) -> C | None:
        """The call, unless it is over."""
        calls = self._calls.get(member[0])
        return None if calls is None else calls.get(member[1])

    def end(self, member: Member) -> C | None:
        """The call is over. Returns it; None when it was over already."""
        calls = self._calls.get(member[0])
        return None if calls is None else calls.pop(member[1], None)

    # work ----------------------------------------------------------------------------------------------

    def spawn(self, work: Coroutine[object, object, None]) -> None:
        """Do this beside; `close` gives it up."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
