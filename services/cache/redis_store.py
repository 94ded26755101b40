"""Answers in Redis or Valkey (7 or newer), sealed, with one secret per scope that a purge replaces.

    em:v1:<wire>     a sealed value (seal.py), with its TTL
    em:s1:<scope>    the scope's secret: "C" + 16 random bytes (made for a put) or "P" + 16 (made by a purge)

A look-up is one MGET of the entry and its scopes' secrets: 60 µs on loopback, and a purge by anyone who
shares the store is in force at once. A ticket holds the secrets as of its look-up. `put` stores only if they
are still the current ones; a secret that was missing then may be made or adopted ("C"), but not one that a
purge left ("P"). A secret that Redis evicted makes its entries unreadable, never readable again. Works with
any eviction policy.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable
from typing import cast

import hiredis

from ..clock import Clock, SystemClock
from .breaker import Breaker
from .key import CacheKey
from .redis_kept import KeptWire
from .redis_sweep import sweep
from .redis_wire import Command, Refused, Replies, WireError, open_wire
from .seal import Broken, person_of, seal, unseal
from .store import Found, StoreDown, StoreStats, Ticket

log = logging.getLogger(__name__)

ENTRY, SECRET = b"em:v1:", b"em:s1:"
SECRET_MS = 4 * 3600 * 1000
"""A secret outlives every ticket that could be older than it, and twice the TTL of what it seals."""
WRITE_TIMEOUT_S = 0.5
CONNECT_TIMEOUT_S = 0.5
NUM_PROBES = 3


class RedisStore(KeptWire):
    """A ResponseStore in Redis. `start` connects; from then on a task keeps the connection."""

    def __init__(
        self,
        url: str,
        seal_root: bytes,
        *,
        read_timeout_s: float = 0.001,
        clock: Clock | None = None,
        breaker: Breaker | None = None,
    ) -> None:
        super().__init__(url)
        self._root, self._read_timeout_s = seal_root, read_timeout_s
        self._clock = clock or SystemClock()
        self._breaker = breaker or Breaker()
        self._owed: set[bytes] = set()
        self._counts = dict.fromkeys(
            ("gets", "hits", "puts", "refused_puts", "purges", "failures", "poisoned"), 0
        )

    async def get(self, key: CacheKey) -> Found:
        answer: asyncio.Future[Found] = asyncio.get_running_loop().create_future()

        def told(found: Found) -> None:
            if not answer.done():
                answer.set_result(found)

        self.look(key, told)
        return await answer

    def look(self, key: CacheKey, told: Callable[[Found], None]) -> None:
        self._counts["gets"] += 1
        scopes = key.scopes
        if self._wire is None or not self._owed.isdisjoint(scopes):
            told(Found())
            return

        def came(outcome: Replies | WireError) -> None:
            try:
                values, ttl_ms = self._checked(outcome)
                sealed, *secrets = cast("list[bytes | None]", values)
                ticket = Ticket(key, tuple(secret or b"" for secret in secrets))
                if sealed is None:
                    found = Found(ticket=ticket)
                else:
                    ttl_s = cast(int, ttl_ms) / 1000
                    if self._of_another_person(key, sealed):
                        self._ask_secret(sealed, ticket, ttl_s, told)
                        return
                    found = self._open(sealed, ticket, ttl_s, ticket.marks)
            except (WireError, TypeError, ValueError):
                self._failed()
                found = Found()
            told(found)

        names = [SECRET + scope for scope in scopes]
        entry = ENTRY + key.wire
        self._wire.ask([(b"MGET", entry, *names), (b"PTTL", entry)], self._read_timeout_s, came)

    async def put(self, ticket: Ticket, value: bytes, ttl_s: float) -> bool:
        key = ticket.key
        ttl_ms = int(ttl_s * 1000)
        if ttl_ms <= 0 or self._wire is None or not self._owed.isdisjoint(key.scopes):
            self._counts["refused_puts"] += 1
            return False
        try:
            secrets = await self._secrets(ticket)
            if secrets is None:
                self._counts["refused_puts"] += 1
                return False
            sealed = seal(self._root, secrets, key.wire, key.person, value)
            keep: list[Command] = [(b"PEXPIRE", SECRET + scope, 2 * ttl_ms, b"GT") for scope in key.scopes]
            await self._call([(b"SET", ENTRY + key.wire, sealed, b"PX", ttl_ms), *keep], WRITE_TIMEOUT_S)
        except Refused as error:  # a full store still answers: reading goes on
            log.debug("the response store does not take an answer: %s", error)
            self._counts["refused_puts"] += 1
            return False
        except (WireError, TypeError, ValueError):
            self._failed()
            self._counts["refused_puts"] += 1
            return False
        self._counts["puts"] += 1
        return True

    async def purge(self, scope: bytes) -> None:
        self._counts["purges"] += 1
        self._owed.add(scope)
        try:
            await self._pay(scope)
        except WireError as error:
            self._failed()
            raise StoreDown(f"the purge is kept and confirmed later: {error}") from error

    async def sweep(self, tenant: bytes, person: bytes, *, remove: bool) -> int:
        try:
            return await sweep(self._url, ENTRY, tenant, person, remove=remove)
        except WireError as error:
            raise StoreDown(f"the store could not be looked through: {error}") from error

    def stats(self) -> StoreStats:
        return StoreStats("redis", up=self._wire is not None, **self._counts)

    # ---------------------------------------------------------------------------------------------------

    async def _call(self, commands: list[Command], timeout_s: float) -> Replies:
        if self._wire is None:
            raise WireError("not connected")
        return self._checked(await self._wire.call(commands, timeout_s))

    def _checked(self, outcome: Replies | WireError) -> Replies:
        """The replies, none of which is an error. Raises WireError."""
        if isinstance(outcome, WireError):
            raise outcome
        for reply in outcome:
            if isinstance(reply, hiredis.ReplyError):
                raise Refused(str(reply))
        self._breaker.succeeded(self._clock.now_s())
        return outcome

    def _of_another_person(self, key: CacheKey, sealed: bytes) -> bool:
        """Was it made for another person of the tenant, whose secret opens it?"""
        person = person_of(sealed)
        return bool(person) and person != key.person

    def _ask_secret(self, sealed: bytes, ticket: Ticket, ttl_s: float, told: Callable[[Found], None]) -> None:
        scope = b"p" + (person_of(sealed) or b"")
        if scope in self._owed or self._wire is None:
            told(Found())
            return

        def came(outcome: Replies | WireError) -> None:
            try:
                (secret,) = self._checked(outcome)
                secrets = (*ticket.marks[:2], cast("bytes | None", secret) or b"")
                found = self._open(sealed, ticket, ttl_s, secrets)
            except (WireError, TypeError, ValueError):
                self._failed()
                found = Found()
            told(found)

        self._wire.ask([(b"GET", SECRET + scope)], self._read_timeout_s, came)

    def _open(self, sealed: bytes, ticket: Ticket, ttl_s: float, secrets: tuple[bytes, ...]) -> Found:
        """`secrets` are of tenant, model and, where somebody asked or it was made for somebody, person."""
        key, person = ticket.key, person_of(sealed)
        if person == b"":
            secrets = secrets[:2]
        opened = unseal(self._root, secrets, key.wire, sealed) if all(secrets) else Broken.PURGED
        if isinstance(opened, bytes):
            self._counts["hits"] += 1
            return Found(opened, max(ttl_s, 0.0), person or b"", ticket)
        if opened is Broken.POISONED:
            self._counts["poisoned"] += 1
        if self._wire is not None:  # unreadable for good: give the space back, nobody waits for it
            self._wire.ask([(b"UNLINK", ENTRY + key.wire)], WRITE_TIMEOUT_S, _ignore)
        return Found(ticket=ticket)

    async def _secrets(self, ticket: Ticket) -> tuple[bytes, ...] | None:
        """The scopes' current secrets, or None when one of them changed since the ticket."""
        names = [SECRET + scope for scope in ticket.key.scopes]
        make: list[Command] = [
            (b"SET", name, b"C" + os.urandom(16), b"NX", b"PX", SECRET_MS)
            for name, mark in zip(names, ticket.marks, strict=True)
            if not mark
        ]
        *_, current = await self._call([*make, (b"MGET", *names)], WRITE_TIMEOUT_S)
        secrets = cast("list[bytes | None]", current)
        for mark, secret in zip(ticket.marks, secrets, strict=True):
            if secret is None or (secret != mark if mark else secret[:1] != b"C"):
                return None
        return tuple(cast("list[bytes]", secrets))

    async def _pay(self, scope: bytes) -> None:
        name = SECRET + scope
        # UNLINK first: a full Redis (noeviction) may refuse the SET; what is stored is unreadable by then.
        await self._call([(b"UNLINK", name)], WRITE_TIMEOUT_S)
        with contextlib.suppress(Refused):
            await self._call([(b"SET", name, b"P" + os.urandom(16), b"PX", SECRET_MS)], WRITE_TIMEOUT_S)
        self._owed.discard(scope)

    def _failed(self, *, fatal: bool = False) -> None:
        self._counts["failures"] += 1
        if self._breaker.failed(self._clock.now_s(), fatal=fatal) and self._wire is not None:
            log.warning("the response store does not answer; going on without it")
            self._wire.close()
            self._wire = None

    async def _connect(self) -> None:
        wire = await open_wire(self._url, CONNECT_TIMEOUT_S)
        try:
            pings = [wire.call([(b"PING",)], self._read_timeout_s) for _ in range(NUM_PROBES)]
            late = [
                isinstance(each, BaseException)
                for each in await asyncio.gather(*pings, return_exceptions=True)
            ]
            if all(late):  # as fast as a look-up has to be, at least once, or it would only trip again
                raise WireError("too slow")
        except WireError:
            wire.close()
            raise
        self._wire = wire
        self._breaker.succeeded(self._clock.now_s())
        for scope in list(self._owed):
            await self._pay(scope)

    async def _keep(self) -> None:
        while True:
            wire = self._wire
            if wire is not None:
                await asyncio.shield(wire.lost)
                if self._wire is wire:
                    self._failed(fatal=True)
                    self._wire = None
            if self._breaker.state == "closed":
                self._failed(fatal=True)
            await asyncio.sleep(self._breaker.wait_s(self._clock.now_s()))
            if self._breaker.probe(self._clock.now_s()):
                try:
                    await self._connect()
                except WireError as error:
                    self._wire = None
                    self._breaker.failed(self._clock.now_s(), fatal=True)
                    log.debug("the response store is not back: %s", error)


def _ignore(_: Replies | WireError) -> None:
    """Nobody waits."""
