"""A gateway's stored responses: begun, finished, found, continued, deleted. The store's and the keys' only user here.

Rules: every key is made of the *authenticated* tenant and the id (cache/key.py), so an id of another tenant, one that
was deleted and one that never was are the same: nothing. A response has a scope of its own beside its tenant's and its
person's; to delete it is to purge that, so that whoever still writes it cannot bring it back. Raises MeshError only,
and says "unavailable" only where the store said nothing.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ..cache.key import TAG_BYTES, CacheKey, CacheKeys
from ..cache.store import Found, StoreDown, Ticket
from ..clock import Clock
from ..config_conversations import ConversationsConfig
from ..errors import RequestError, ServiceError
from ..outcome import Reason
from . import record
from .record import IN_PROGRESS, Earlier, Turn
from .store import TurnStore

_ID = re.compile(r"resp_[0-9a-f]{48}")
NUM_WINDOWS = 8
"""Of `keep_s`; stored bytes are forgotten one window late at most."""
RECORD_BYTES = 512
"""What a record costs in Redis beside its words: names, seal, secret."""
AGAIN_S = 1.0
"""When to come back to a store that is out of reach."""


class Chain(msgspec.Struct, frozen=True):
    """Earlier turns of a conversation, oldest first, and how the next turn names them."""

    turns: tuple[Turn, ...] = ()
    before: tuple[Earlier, ...] = ()

    @property
    def items(self) -> list[dict[str, Any]]:
        return [item for turn in self.turns for item in turn.said]


class Place(msgspec.Struct, frozen=True):
    """Where a response that is being made will be kept. `known`: a call of the same idempotency key has begun it;
    `kept`: and finished it."""

    response_id: str
    ticket: Ticket
    items: tuple[Mapping[str, Any], ...] = ()
    before: tuple[Earlier, ...] = ()
    known: bool = False
    kept: bool = False


class Shelf:
    """One per gateway."""

    def __init__(self, config: ConversationsConfig, keys: CacheKeys, store: TurnStore, clock: Clock) -> None:
        self.config, self._keys, self._store, self._clock = config, keys, store, clock

    def wants(self, store: bool | None) -> bool:
        """Is a response kept whose request says that?"""
        return store is True or (store is None and self.config.store == "unless_refused")

    # a new response --------------------------------------------------------------------------------------

    async def reserve(self, tenant: str, person: str, name: str) -> Place:
        """A place for a response, before anything is read for it: what is purged from now on will not be in it. `name`
        is its idempotency key or empty. Raises RequestError (no room), ServiceError (store away)."""
        response_id = self._new_id(tenant, name)
        key = self._keys.turn_key(tenant, response_id, person)
        used, found = await asyncio.gather(self._used(key), self._store.get(key))
        if used is None or found.ticket is None:
            raise away()
        if used >= self.config.max_tenant_bytes:
            message = (
                f"your stored responses have the {self.config.max_tenant_bytes} bytes that they may have: "
                "delete some, or send store: false"
            )
            raise RequestError(Reason.QUOTA_EXCEEDED, message, param="store")
        known = record.decode(found.value) if found.value is not None else None
        kept = known is not None and known.status != IN_PROGRESS
        return Place(response_id, found.ticket, known=known is not None, kept=kept)

    async def begin(
        self,
        place: Place,
        items: Sequence[Mapping[str, Any]],
        before: Sequence[Earlier],
        shown: Mapping[str, object],
        life_s: float,
    ) -> Place:
        """What it is a response to, before anything is spent on it: until it is finished it is `shown` as being in
        progress, for `life_s`. Raises RequestError (too large), ServiceError (store away, or purged meanwhile)."""
        begun = {**shown, "id": place.response_id, "status": IN_PROGRESS, "output": []}
        note = record.encode(begun, items, before)
        if len(note) > self.config.max_record_bytes:
            message = f"is for at most {self.config.max_record_bytes} bytes of new input: send store: false"
            raise RequestError(Reason.INVALID_FIELD, f"store {message}", param="store")
        if not place.known and not await self._store.put(place.ticket, note, life_s):
            raise away()
        return msgspec.structs.replace(place, items=tuple(items), before=tuple(before))

    async def finish(self, place: Place, response: Mapping[str, object]) -> bool:
        """Keep the whole of it. False: it is not kept (too large, deleted meanwhile, store away). Never raises."""
        value = record.encode(response, place.items, place.before)
        config, ticket = self.config, place.ticket
        if len(value) > config.max_record_bytes or not await self._store.put(ticket, value, config.keep_s):
            return False
        await self._count(ticket.key, self._clock.wall_s(), len(value) + RECORD_BYTES)
        return True

    async def abandon(self, place: Place) -> None:
        """It failed, or nobody waits for it. Never raises."""
        if not place.known:
            await self._purge(_own_scope(place.ticket.key))
            await self._store.get(place.ticket.key)  # what does not open any more is removed

    # a stored one --------------------------------------------------------------------------------------

    async def get(self, tenant: str, response_id: str) -> Turn:
        """Raises RequestError (NOT_FOUND), ServiceError."""
        _, turn, _ = await self._find(tenant, response_id)
        return turn

    async def delete(self, tenant: str, response_id: str) -> None:
        """Raises RequestError (NOT_FOUND), ServiceError: it may be there still, and will be deleted when the store
        answers again."""
        key, turn, num_bytes = await self._find(tenant, response_id)
        if not await self._purge(_own_scope(key)):
            raise away()
        await self._store.get(key)  # what does not open any more is removed
        if turn.status != IN_PROGRESS:
            created_s = turn.response.get("created_at")
            at_s = float(created_s) if isinstance(created_s, int) else 0.0
            await self._count(key, at_s, -num_bytes - RECORD_BYTES)

    async def purge(self, tenant: str, person: str = "") -> bool:
        """Destroy what was kept for a tenant, or for one of its people. False: not confirmed yet."""
        if person:
            return await self._purge(self._keys.person_scope(tenant, person))
        await self._forget_count(self._keys.turn_key(tenant, ""))
        return await self._purge(self._keys.tenant_scope(tenant))

    async def sweep(self, tenant: str, person: str, *, remove: bool) -> int:
        """As TurnStore.sweep; in Redis the response cache's values lie beside and are counted too. Raises StoreDown."""
        key = self._keys.turn_key(tenant, "", person)
        return await self._store.sweep(key.wire[:TAG_BYTES], key.person, remove=remove)

    async def chain(self, tenant: str, response_id: str, *, cut: bool) -> Chain:
        """A stored response and the turns before it. `cut`: leave out the oldest that are gone, or too much. Raises
        RequestError (PREVIOUS_RESPONSE_NOT_FOUND, CONTEXT_TOO_LONG, INVALID_FIELD), ServiceError."""
        try:
            _, last, num_bytes = await self._find(tenant, response_id)
        except RequestError:
            raise no_previous() from None
        if last.status == IN_PROGRESS:
            message = "previous_response_id is of a response that is not completed yet"
            raise RequestError(Reason.INVALID_FIELD, message, param="previous_response_id")
        wanted = self._within(last.before, num_bytes, cut=cut)
        found = await asyncio.gather(*(self._look(tenant, one.response_id) for one in wanted))
        turns: list[Turn] = [last]
        for answer in reversed(found):
            turn = _turn_of(answer)
            if turn is None and not cut:
                raise no_previous("an earlier response of it was deleted or has expired")
            if turn is None:
                break
            turns.append(turn)
        turns.reverse()
        before = (*wanted[len(wanted) - len(turns) + 1 :], Earlier(response_id, num_bytes))
        return Chain(tuple(turns), before)

    async def close(self) -> None:
        """Let go of connections."""
        await self._store.close()

    # ---------------------------------------------------------------------------------------------------

    def _within(self, before: tuple[Earlier, ...], num_bytes: int, *, cut: bool) -> tuple[Earlier, ...]:
        """The newest of them that one request may continue."""
        config, total, first = self.config, num_bytes, len(before)
        while first and total <= config.max_conversation_bytes and len(before) - first + 1 < config.max_turns:
            first -= 1
            total += before[first].num_bytes
        if total > config.max_conversation_bytes and first < len(before):
            first += 1
        if first and not cut:
            message = (
                f"the conversation has more than {config.max_turns} turns or {config.max_conversation_bytes} bytes: "
                "send truncation: auto to leave out the oldest"
            )
            raise RequestError(Reason.CONTEXT_TOO_LONG, message, param="previous_response_id")
        return before[first:]

    async def _find(self, tenant: str, response_id: str) -> tuple[CacheKey, Turn, int]:
        if not _ID.fullmatch(response_id):
            raise not_found()
        found = await self._look(tenant, response_id)
        turn = _turn_of(found)
        if turn is None or found.ticket is None or found.value is None:
            raise not_found()
        key = CacheKey(found.ticket.key.wire, found.person)
        return key, turn, len(found.value)

    async def _look(self, tenant: str, response_id: str) -> Found:
        return await self._store.get(self._keys.turn_key(tenant, response_id))

    async def _purge(self, scope: bytes) -> bool:
        try:
            await self._store.purge(scope)
        except StoreDown:
            return False
        return True

    def _new_id(self, tenant: str, name: str) -> str:
        digits = self._keys.named_turn(tenant, name) if name else secrets.token_hex(24)
        return f"resp_{digits}"

    # what a tenant has stored ----------------------------------------------------------------------------

    async def _used(self, key: CacheKey) -> int | None:
        return await self._store.used(_tag(key), self._windows())

    async def _count(self, key: CacheKey, at_s: float, num_bytes: int) -> None:
        await self._add(key, self._window(at_s), num_bytes)

    async def _forget_count(self, key: CacheKey) -> None:
        for window in self._windows():
            if used := await self._store.used(_tag(key), [window]):
                await self._add(key, window, -used)

    async def _add(self, key: CacheKey, window: int, num_bytes: int) -> None:
        life_s = self.config.keep_s * (NUM_WINDOWS + 1) / NUM_WINDOWS
        await self._store.add(_tag(key), window, num_bytes, life_s)

    def _windows(self) -> range:
        now = self._window(self._clock.wall_s())
        return range(now - NUM_WINDOWS, now + 1)

    def _window(self, wall_s: float) -> int:
        return int(wall_s / (self.config.keep_s / NUM_WINDOWS))


def _tag(key: CacheKey) -> bytes:
    """The tenant's, printable."""
    return key.wire[:TAG_BYTES].hex().encode()


def _own_scope(key: CacheKey) -> bytes:
    """The scope that only this response has (CacheKeys.turn_key)."""
    return key.scopes[1]


def _turn_of(found: Found) -> Turn | None:
    """Raises ServiceError when the store said nothing."""
    if found.ticket is None:
        raise away()
    return record.decode(found.value) if found.value is not None else None


def not_found() -> RequestError:
    """The same for an id of nobody, of another tenant and of what was deleted."""
    return RequestError(Reason.NOT_FOUND, "there is no response with this id", param="response_id")


def no_previous(why: str = "there is no response with this id") -> RequestError:
    """In OpenAI's words."""
    message = f"previous_response_id: {why}"
    return RequestError(Reason.PREVIOUS_RESPONSE_NOT_FOUND, message, param="previous_response_id")


def away() -> ServiceError:
    """The store does not answer."""
    message = "the store of responses does not answer; what says store: false and continues nothing is served"
    return ServiceError(Reason.STORE_UNAVAILABLE, message, retry_after_s=AGAIN_S)
