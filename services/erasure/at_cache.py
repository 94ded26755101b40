"""Erasing a person where the Cache is: the stores, this process, every gateway's memory, the journal. Look, purge,
sweep, and look again, as often as it takes.

Rules: the purge (cache/authority.py) is what makes answers unreadable, at once and for work under way; the sweep
takes the bytes; the second look trusts neither. A place is erased only if that look found nothing. All of it may be
run again, and is the same the second time: a process that died in the middle leaves nothing that must be known.
"""

from __future__ import annotations

from collections.abc import Awaitable

from ..audit.record import ErasedPlace
from ..cache.authority import Authority
from ..cache.key import TAG_BYTES, CacheKeys
from ..cache.store import StoreDown
from ..journal.authority import JournalAuthority
from ..journal.store import StoreDown as JournalStoreDown
from .places import Name

MAX_PASSES = 3
"""Requests of the person that come in meanwhile are new data; who asks on and on is not erased, and that is said."""
AWAY = (
    "the store does not answer: it purges before it gives anything again, but run this again when it is back"
)
SILENT = "a gateway did not answer in time: run this again"
AGAIN = "requests of the person still come in: take the key away or wait for them to end, and run this again"

Counts = dict[Name, int | None]
"""What each place holds; None: nobody knows."""


async def erase_person(
    authority: Authority, journal: JournalAuthority | None, keys: CacheKeys, tenant: str, person: str
) -> list[ErasedPlace]:
    """One entry per place that the Cache's process reaches. Raises ValueError for nobody."""
    scope = keys.person_scope(tenant, person)
    tags = keys.tenant_scope(tenant)[1 : 1 + TAG_BYTES], scope[1:]
    before = await _look(authority, journal, scope, tags)
    confirmed, after = False, before
    for _ in range(MAX_PASSES):
        if journal is not None:
            journal.purge(scope)
            await journal.written()
        confirmed = await authority.purge(scope)
        await _sweep(authority, journal, tags)
        after = await _look(authority, journal, scope, tags)
        if not confirmed or not any(after.values()):
            break
    found = [_place(name, before[name], left) for name, left in after.items()]
    return [each if confirmed else _unconfirmed(each) for each in found]


async def _look(
    authority: Authority, journal: JournalAuthority | None, scope: bytes, tags: tuple[bytes, bytes]
) -> Counts:
    """What there is now, by reading it."""
    making, meanings = authority.held(scope)
    gateways = await authority.gateways.ask(scope)
    silent = any(num is None for num in gateways)
    counts: Counts = {
        Name.ANSWERS: await _num(authority.store.sweep(*tags, remove=False)),
        Name.MAKING: making,
        Name.MEANINGS: meanings,
        Name.GATEWAYS: None if silent else sum(num or 0 for num in gateways),
    }
    if journal is not None:
        counts[Name.JOURNAL] = journal.book.held(scope)
        if journal.store is not None:
            counts[Name.JOURNAL_STORE] = await _num(journal.store.sweep(*tags, remove=False))
    return counts


async def _sweep(authority: Authority, journal: JournalAuthority | None, tags: tuple[bytes, bytes]) -> None:
    await _num(authority.store.sweep(*tags, remove=True))
    if journal is not None and journal.store is not None:
        await _num(journal.store.sweep(*tags, remove=True))


async def _num(sweep: Awaitable[int]) -> int | None:
    try:
        return await sweep
    except (StoreDown, JournalStoreDown):
        return None


def _place(name: Name, before: int | None, left: int | None) -> ErasedPlace:
    found = -1 if before is None else before
    if left is None:
        return ErasedPlace(name, "pending", found, -1, SILENT if name is Name.GATEWAYS else AWAY)
    return ErasedPlace(name, "pending", found, left, AGAIN) if left else ErasedPlace(name, "erased", found)


def _unconfirmed(place: ErasedPlace) -> ErasedPlace:
    """The purge of what is in the store is owed."""
    in_store = place.place in (Name.ANSWERS, Name.JOURNAL_STORE) and place.state == "erased"
    return ErasedPlace(place.place, "pending", place.found, place.left, AWAY) if in_store else place
