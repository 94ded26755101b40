"""The journal's records in Redis or Valkey (7 or newer), sealed, one stream per answer.

    em:j1:<wire>    a stream; the id of an entry is its place (epoch-number), `r` its sealed record

`XADD` with a given id refuses one that is not behind the last, atomically and whoever sends it: that is the fence.
`NOMKSTREAM` refuses to begin in the middle. Records are sealed as the response cache's are (cache/seal.py), under the
same secrets per scope, so that a purge of the cache (RedisStore.purge) has destroyed them too; the place is part of
what is sealed, so that records cannot be moved or repeated.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import OrderedDict
from collections.abc import Sequence
from typing import cast

import hiredis

from ..cache.breaker import Breaker
from ..cache.key import CacheKey
from ..cache.redis_kept import KeptWire
from ..cache.redis_store import SECRET, SECRET_MS
from ..cache.redis_sweep import sweep
from ..cache.redis_wire import Command, WireError, open_wire
from ..cache.seal import seal, unseal
from ..clock import Clock, SystemClock
from .store import Kept, Place, StoreDown, Write

log = logging.getLogger(__name__)

RECORDS = b"em:j1:"
WRITE_TIMEOUT_S = 0.5
CONNECT_TIMEOUT_S = 0.5
MAX_SECRETS = 100_000


class RedisJournalStore(KeptWire):
    """A JournalStore in Redis. `start` connects; from then on a task keeps the connection."""

    def __init__(self, url: str, root: bytes, *, load_timeout_s: float, clock: Clock | None = None) -> None:
        super().__init__(url)
        self._root, self._load_timeout_s = root, load_timeout_s
        self._clock = clock or SystemClock()
        self._breaker = Breaker()
        self._secrets: OrderedDict[bytes, tuple[bytes, ...]] = OrderedDict()

    async def load(self, key: CacheKey) -> list[Kept]:
        names = [SECRET + scope for scope in key.scopes]
        make: list[Command] = [
            (b"SET", name, b"C" + os.urandom(16), b"NX", b"PX", SECRET_MS) for name in names
        ]
        longer: list[Command] = [(b"PEXPIRE", name, SECRET_MS, b"GT") for name in names]
        asked: list[Command] = [
            *make,
            *longer,
            (b"MGET", *names),
            (b"XRANGE", RECORDS + key.wire, b"-", b"+"),
        ]
        *_, current, entries = await self._call(asked, self._load_timeout_s)
        if isinstance(current, hiredis.ReplyError) or isinstance(entries, hiredis.ReplyError):
            raise StoreDown(f"{current} {entries}"[:200])
        found = cast("list[bytes | None]", current)
        if not all(found):
            raise StoreDown("it does not keep the secrets of a journal")  # full: it takes nothing
        secrets = self._remember(key, tuple(cast("list[bytes]", found)))
        kept: list[Kept] = []
        for name, fields in cast("list[tuple[bytes, list[bytes]]]", entries):
            place = _place(name)
            opened = unseal(self._root, secrets, key.wire + name, fields[1])
            if not isinstance(opened, bytes):
                await self._call([(b"UNLINK", RECORDS + key.wire)], self._load_timeout_s)
                return []
            kept.append(Kept(place, opened))
        return kept

    async def write(self, writes: Sequence[Write]) -> list[bool]:
        commands: list[Command] = []
        for write in writes:
            name = RECORDS + write.key.wire
            if not write.record:
                commands += [(b"UNLINK", name), (b"PING",)]
                continue
            secrets = self._secrets.get(write.key.wire)
            if secrets is None:
                raise StoreDown("a key that was never looked up")
            place = b"%d-%d" % write.place
            sealed = seal(self._root, secrets, write.key.wire + place, write.key.person, write.record)
            add = (b"XADD", name) if write.opens else (b"XADD", name, b"NOMKSTREAM")
            commands += [(*add, place, b"r", sealed), (b"PEXPIRE", name, int(write.ttl_s * 1000))]
        replies = await self._call(commands, WRITE_TIMEOUT_S)
        return [_accepted(reply) for reply in replies[::2]]

    async def sweep(self, tenant: bytes, person: bytes, *, remove: bool) -> int:
        try:
            return await sweep(self._url, RECORDS, tenant, person, remove=remove, streams=True)
        except WireError as error:
            raise StoreDown(f"the store could not be looked through: {error}") from error

    # ---------------------------------------------------------------------------------------------------

    def _remember(self, key: CacheKey, secrets: tuple[bytes, ...]) -> tuple[bytes, ...]:
        self._secrets[key.wire] = secrets
        self._secrets.move_to_end(key.wire)
        if len(self._secrets) > MAX_SECRETS:
            self._secrets.popitem(last=False)
        return secrets

    async def _call(self, commands: list[Command], timeout_s: float) -> list[object]:
        if (wire := self._wire) is None:
            raise StoreDown("not connected")
        try:
            replies = await wire.call(commands, timeout_s)
        except WireError as error:
            if self._breaker.failed(self._clock.now_s()):
                log.warning("the journal's store does not answer; going on without it")
                wire.close()
            raise StoreDown(str(error)) from error
        self._breaker.succeeded(self._clock.now_s())
        return replies

    async def _connect(self) -> None:
        wire = await open_wire(self._url, CONNECT_TIMEOUT_S)
        self._wire = wire
        self._breaker.succeeded(self._clock.now_s())

    async def _keep(self) -> None:
        while True:
            if (wire := self._wire) is not None:
                await asyncio.shield(wire.lost)
                self._wire = None
            if self._breaker.state == "closed":
                self._breaker.failed(self._clock.now_s(), fatal=True)
            await asyncio.sleep(self._breaker.wait_s(self._clock.now_s()))
            if self._breaker.probe(self._clock.now_s()):
                try:
                    await self._connect()
                except WireError as error:
                    self._breaker.failed(self._clock.now_s(), fatal=True)
                    log.debug("the journal's store is not back: %s", error)


def _place(name: bytes) -> Place:
    epoch, _, number = name.partition(b"-")
    return int(epoch), int(number)


def _accepted(reply: object) -> bool:
    """Raises StoreDown for an error that is not about the place."""
    if isinstance(reply, hiredis.ReplyError):
        if "equal or smaller" in str(reply):
            return False
        raise StoreDown(str(reply))
    return reply is not None
