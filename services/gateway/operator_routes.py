"""What operators ask of a running mesh over HTTP, behind the permission OPERATE: the response cache, releases, workers.

Rules: bytes in, JSON out, no decisions; the Cache and PriorityQueue deployments answer. Clients of the mesh have no
business here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from ..audit.record import ErasedPlace
from ..errors import ConfigError, RequestError, ServiceError
from ..outcome import Reason
from ..queue.rollout.operations import Wish

Figures = dict[str, object]


class PurgeWish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose answers to destroy: a tenant's, one of its people's, or a model's."""

    tenant: str = ""
    person: str = ""
    model: str = ""


class CacheOperations(msgspec.Struct, frozen=True):
    """The Cache deployment as operators use it."""

    stats: Callable[[], Awaitable[Figures]]
    purge: Callable[[PurgeWish], Awaitable[Figures]]
    erase: Callable[[PurgeWish], Awaitable[list[ErasedPlace]]] | None = None


QueueOperate = Callable[[Wish], Awaitable[Figures]]
"""The PriorityQueue deployment as operators use it. Raises ConfigError."""

_WISH = msgspec.json.Decoder(PurgeWish)
_QUEUE_WISH = msgspec.json.Decoder(Wish)


async def operate_queue(operate: QueueOperate | None, body: bytes) -> Figures:
    """Raises RequestError (INVALID_JSON, INVALID_FIELD: also what makes no sense now), ServiceError (NOT_READY)."""
    if operate is None:
        raise ServiceError(Reason.NOT_READY, "the queue cannot be operated from here")
    try:
        return await operate(_QUEUE_WISH.decode(body))
    except ConfigError as error:
        raise RequestError(Reason.INVALID_FIELD, str(error)) from None
    except msgspec.ValidationError as error:
        raise RequestError(Reason.INVALID_FIELD, str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RequestError(Reason.INVALID_JSON, f"the body is not valid JSON: {error}") from None


def read_purge(body: bytes) -> PurgeWish:
    """Raises RequestError (INVALID_JSON, INVALID_FIELD) unless exactly one scope is named."""
    try:
        wish = _WISH.decode(body)
    except msgspec.ValidationError as error:
        raise RequestError(Reason.INVALID_FIELD, str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RequestError(Reason.INVALID_JSON, f"the body is not valid JSON: {error}") from None
    if bool(wish.tenant) == bool(wish.model) or (wish.person and not wish.tenant):
        message = "name a tenant, a tenant and one of its people, or a model"
        raise RequestError(Reason.INVALID_FIELD, message, param="tenant")
    return wish


def needed(operations: CacheOperations | None) -> CacheOperations:
    """Raises ServiceError (NOT_READY) where the gateway runs without a Cache deployment."""
    if operations is None:
        raise ServiceError(Reason.NOT_READY, "the cache cannot be operated from here")
    return operations
