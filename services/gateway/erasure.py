"""`POST /admin/erase`: a person's data, everywhere, and the record of it.

Rules: a shell between the operator's request, the Cache's part (services/erasure/at_cache.py) and this gateway's own;
what is left where, and why, stands in services/erasure/places.py. The record goes to the audit log, signed at once; a
failure to write it does not undo the erasure, and is said.
"""

from __future__ import annotations

import msgspec

from ..audit.record import ErasedPlace, EraseRecord, Event
from ..cache.store import StoreDown
from ..conversations.shelf import Shelf
from ..erasure.at_cache import AGAIN, AWAY
from ..erasure.places import ALWAYS_KEPT, Name
from ..errors import RequestError, ServiceError
from ..outcome import Reason
from ..telemetry.logs import iso_time
from .mesh import Mesh
from .operator_routes import PurgeWish, needed, read_purge


class Erasure(msgspec.Struct, frozen=True):
    """What an operator gets. `recorded`: in the audit log, signed; "off" where there is none, "failed" where its disk
    took nothing. `chain` is the audit log's folder."""

    record: EraseRecord
    recorded: str
    chain: str = ""


def read_erase(body: bytes) -> PurgeWish:
    """Raises RequestError (INVALID_JSON, INVALID_FIELD) unless one person of a tenant is named."""
    wish = read_purge(body)
    if not wish.person:
        raise RequestError(Reason.INVALID_FIELD, "name a tenant and one of its people", param="person")
    return wish


async def erase(mesh: Mesh, wish: PurgeWish, key_id: str) -> Erasure:
    """Raises ServiceError (NOT_READY) where the Cache cannot be reached: nothing is done then that must be known."""
    at_cache = needed(mesh.cache_operations).erase
    if at_cache is None:
        raise ServiceError(Reason.NOT_READY, "nothing can be erased from here")
    places = await at_cache(wish)
    if mesh.shelf is not None:
        places.append(await _stored(mesh.shelf, wish))
    places += [ErasedPlace(place.name, "kept", -1, -1, place.kept, place.until) for place in ALWAYS_KEPT]
    pending = any(place.state == "pending" for place in places)
    person = mesh.audit.person(wish.tenant, wish.person) if mesh.audit is not None else ""
    record = EraseRecord(
        iso_time(mesh.clock.wall_s()), Event.ERASE, mesh.new_request_id(),
        "incomplete" if pending else "complete", wish.tenant, person, key_id, tuple(places),
    )  # fmt: skip
    if mesh.audit is None:
        return Erasure(record, "off")
    return Erasure(record, "signed" if await mesh.audit.erased(record) else "failed", mesh.audit.log.chain)


async def _stored(shelf: Shelf, wish: PurgeWish) -> ErasedPlace:
    """This gateway's shelf, by its own connection. In Redis all gateways have one store."""
    tenant, person = wish.tenant, wish.person
    found = -1
    try:
        found = await shelf.sweep(tenant, person, remove=False)
        if not await shelf.purge(tenant, person):
            return ErasedPlace(Name.STORED, "pending", found, -1, AWAY)
        await shelf.sweep(tenant, person, remove=True)
        left = await shelf.sweep(tenant, person, remove=False)
    except StoreDown:
        await shelf.purge(tenant, person)  # it is owed then, and paid before the store answers again
        return ErasedPlace(Name.STORED, "pending", found, -1, AWAY)
    return (
        ErasedPlace(Name.STORED, "pending", found, left, AGAIN)
        if left
        else ErasedPlace(Name.STORED, "erased", found)
    )
