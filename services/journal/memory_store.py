"""The journal's records in this process: for the tests and the twin, where it outlives the authority as Redis does."""

from __future__ import annotations

from collections.abc import Sequence

from ..cache.key import CacheKey
from ..clock import Clock, SystemClock
from .store import Kept, StoreDown, Write


class _Records:
    __slots__ = ("expires_s", "kept", "scopes")

    def __init__(self, scopes: tuple[bytes, ...]) -> None:
        self.scopes = scopes
        self.kept: list[Kept] = []
        self.expires_s = 0.0


class MemoryJournalStore:
    """A JournalStore in a dictionary. `out` True: it does not answer."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._records: dict[bytes, _Records] = {}
        self.out = False

    async def load(self, key: CacheKey) -> list[Kept]:
        self._check()
        records = self._live(key)
        return list(records.kept) if records is not None else []

    async def write(self, writes: Sequence[Write]) -> list[bool]:
        self._check()
        return [self._one(write) for write in writes]

    async def close(self) -> None:
        """Nothing to let go of."""

    async def sweep(self, tenant: bytes, person: bytes, *, remove: bool) -> int:
        self._check()
        found = sum(b"p" + person in records.scopes for records in self._records.values())
        if remove:
            self.purge(b"p" + person)
        return found

    def purge(self, scope: bytes) -> None:
        """Forget everything under a scope, as RedisStore.purge does for both stores in Redis."""
        self._records = {
            wire: records for wire, records in self._records.items() if scope not in records.scopes
        }

    def _one(self, write: Write) -> bool:
        records = self._live(write.key)
        if not write.record:
            self._records.pop(write.key.wire, None)
            return True
        if records is None:
            if not write.opens:
                return False
            records = self._records[write.key.wire] = _Records(write.key.scopes)
        elif write.place <= records.kept[-1].place:
            return False
        records.kept.append(Kept(write.place, write.record))
        records.expires_s = self._clock.now_s() + write.ttl_s
        return True

    def _live(self, key: CacheKey) -> _Records | None:
        records = self._records.get(key.wire)
        if records is not None and records.expires_s <= self._clock.now_s():
            del self._records[key.wire]
            return None
        return records

    def _check(self) -> None:
        if self.out:
            raise StoreDown("out")
