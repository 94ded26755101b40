"""Writes what the book wants kept, behind everybody's back: in order, in batches, never in a request's way.

Rules: a shell around a JournalStore. A key whose record could not be written is given up (it stays resumable while
the authority lives) and dropped from the store when that is back, because half of an answer must not look whole.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import NamedTuple

from ..cache.key import CacheKey
from .store import JournalStore, Place, StoreDown, Write

log = logging.getLogger(__name__)

MAX_BATCH = 256
RETRY_S = 0.5
Then = Callable[[], None]


class _Item(NamedTuple):
    write: Write | None
    then: Then | None


class Writer:
    """One per authority. `usurped` is called with a key whose place somebody else took."""

    def __init__(self, store: JournalStore, usurped: Callable[[bytes], None]) -> None:
        self._store, self._usurped = store, usurped
        self._places: dict[bytes, Place] = {}
        self._broken: dict[bytes, CacheKey] = {}
        self._waiting: list[_Item] = []
        self._wakeup = asyncio.Event()
        self.num_failures = 0
        self._task = asyncio.create_task(self._run())

    def loaded(self, key: CacheKey, place: Place) -> None:
        """The store holds records up to `place`."""
        self._places[key.wire] = place

    def keep(self, key: CacheKey, epoch: int, record: bytes, ttl_s: float, then: Then | None = None) -> None:
        """Queue a record; empty: drop the key. `then` is called when it is kept, or given up."""
        wire = key.wire
        write: Write | None = None
        if not record:
            self._places.pop(wire, None)
            write = Write(key, (0, 0), b"", 0.0)
        elif wire not in self._broken:
            last = self._places.get(wire)
            place = (epoch, 1) if last is None or last[0] < epoch else (last[0], last[1] + 1)
            self._places[wire] = place
            write = Write(key, place, record, ttl_s, opens=last is None)
        self._waiting.append(_Item(write, then))
        self._wakeup.set()

    async def settled(self) -> None:
        """All that is queued now is kept, dropped, or given up."""
        done = asyncio.Event()
        self._waiting.append(_Item(None, done.set))
        self._wakeup.set()
        await done.wait()

    async def close(self) -> None:
        self._task.cancel()
        await self._store.close()

    async def _run(self) -> None:
        while True:
            await self._wakeup.wait()
            self._wakeup.clear()
            while self._waiting or self._broken:
                await self._write_some()
                if self._broken and not await self._mend():
                    await asyncio.sleep(RETRY_S)

    async def _write_some(self) -> None:
        items, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
        batch = [item.write for item in items if item.write is not None]
        try:
            taken = await self._store.write(batch) if batch else []
        except StoreDown as error:
            self.num_failures += 1
            log.warning("the journal's store does not take records: %s", error)
            for write in batch:
                self._broken[write.key.wire] = write.key
                self._forget(write.key.wire)
            taken = [True] * len(batch)
        for write, ok in zip(batch, taken, strict=True):
            if not ok:
                self._forget(write.key.wire)
                self._usurped(write.key.wire)
        for item in items:
            if item.then is not None:
                item.then()

    def _forget(self, wire: bytes) -> None:
        """What waits for this key is not written; whoever waits for it is told all the same."""
        self._places.pop(wire, None)
        self._waiting = [
            item
            if item.write is None or item.write.key.wire != wire or not item.write.record
            else _Item(None, item.then)
            for item in self._waiting
        ]

    async def _mend(self) -> bool:
        """Drop what could not be written whole. False: the store is still away."""
        drops = [Write(key, (0, 0), b"", 0.0) for key in self._broken.values()]
        try:
            await self._store.write(drops)
        except StoreDown:
            return False
        for drop in drops:
            self._broken.pop(drop.key.wire, None)
        return True
