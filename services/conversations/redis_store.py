"""Turns in Redis or Valkey (7 or newer): the response cache's adapter with a connection of its own, and counters.

    em:v1:<wire>             a sealed turn (cache/redis_store.py)
    em:u1:<tag>:<window>     bytes that a tenant stored in a window of time

Secrets per scope are the cache's own (em:s1:), so that its purge has destroyed turns too, whoever ran it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from ..cache.redis_store import RedisStore
from ..cache.redis_wire import WireError

USED = b"em:u1:"


class RedisTurnStore(RedisStore):
    """A TurnStore in Redis. `start` connects; from then on a task keeps the connection."""

    async def used(self, tag: bytes, windows: Sequence[int]) -> int | None:
        names = [_name(tag, window) for window in windows]
        try:
            (counts,) = await self._call([(b"MGET", *names)], self._read_timeout_s)
            return max(0, sum(int(count or 0) for count in cast("list[bytes | None]", counts)))
        except (WireError, TypeError, ValueError):
            self._failed()
            return None

    async def add(self, tag: bytes, window: int, num_bytes: int, life_s: float) -> None:
        name = _name(tag, window)
        commands = [(b"INCRBY", name, num_bytes), (b"PEXPIRE", name, int(life_s * 1000))]
        try:
            await self._call(list(commands), self._read_timeout_s)
        except WireError:
            self._failed()


def _name(tag: bytes, window: int) -> bytes:
    return b"%b%b:%d" % (USED, tag, window)
