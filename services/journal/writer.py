"""Writes what the book wants kept, behind everybody's back: in order, in batches, never in a request's way.

Rules: a shell around a JournalStore. A key whose record could not be written is given up (it stays resumable while
the authority lives) and dropped from the store when that is back, because half of an answer must not look whole.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from ..cache.key import CacheKey
from .store import JournalStore, Place, StoreDown, Write

log = logging.getLogger(__name__)

MAX_BATCH = 256
MAX_WAITING = 20_000
RETRY_S = 0.5


class Writer:
    """One per authority. `usurped` is called with a key whose place somebody else took."""

    def __init__(self, store: JournalStore, usurped: Callable[[bytes], None]) -> None:
        self._store, self._usurped = store, usurped
        self._places: dict[bytes, Place] = {}
        self._broken: dict[bytes, CacheKey] = {}
        self._waiting: list[Write] = []
        self._wakeup = asyncio.Event()
        self.num_failures = 0
        self._task = asyncio.create_task(self._run())

    def loaded(self, key: CacheKey, place: Place) -> None:
        """The store holds records up to `place`."""
        self._places[key.wire] = place

    def keep(self, key: CacheKey, epoch: int, record: bytes, ttl_s: float) -> None:
        """Queue a record; empty: drop the key."""
        wire = key.wire
        if not record:
            self._places.pop(wire, None)
            self._waiting.append(Write(key, (0, 0), b"", 0.0))
        elif wire not in self._broken:
            last = self._places.get(wire)
            place = (epoch, 1) if last is None or last[0] < epoch else (last[0], last[1] + 1)
            self._places[wire] = place
            self._waiting.append(Write(key, place, record, ttl_s, opens=last is None))
        self._wakeup.set()

    async def close(self) -> None:
        self._task.cancel()
        await self._store.close()

    async def _run(self) -> None:
        while True:
            await self._wakeup.wait()
            self._wakeup.clear()
            while self._waiting or self._broken:
                if self._broken and not await self._mend():
                    await asyncio.sleep(RETRY_S)
                await self._write_some()

    async def _write_some(self) -> None:
        batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
        if not batch:
            return
        try:
            taken = await self._store.write(batch)
        except StoreDown as error:
            self.num_failures += 1
            log.warning("the journal's store does not take records: %s", error)
            if len(self._waiting) > MAX_WAITING:
                batch, self._waiting = batch + self._waiting, []
            self._give_up(batch)
            return
        for write, ok in zip(batch, taken, strict=True):
            if not ok:
                self._forget(write.key.wire)
                self._usurped(write.key.wire)

    def _give_up(self, batch: list[Write]) -> None:
        for write in batch:
            self._broken[write.key.wire] = write.key
            self._forget(write.key.wire)

    def _forget(self, wire: bytes) -> None:
        self._places.pop(wire, None)
        self._waiting = [write for write in self._waiting if write.key.wire != wire or not write.record]

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
