"""Stored responses over HTTP: make one, get it, list its input, delete it; and destroy all of a tenant or a person.

Rules: bytes in, JSON out; the tenant is the authenticated one, an id is a name among that tenant's. What is in a path
is matched whole and never decoded. Without a shelf none of these routes exist, and POST /v1/responses is as it was.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable

import msgspec

from ..api.fields import invalid, unsupported
from ..api.responses_items import input_list
from ..conversations.shelf import Shelf, not_found
from . import pipeline
from .audit import audited
from .http_call import credential
from .http_stored import StoredCall
from .httptools_exchange import Exchange
from .mesh import Mesh
from .operator_routes import PurgeWish

PREFIX = b"/v1/responses/"
PATTERN = "/v1/responses/{response_id}"
_PATH = re.compile(rb"/v1/responses/([A-Za-z0-9_-]{1,128})(/input_items)?")
_LIMIT = re.compile(r"[1-9][0-9]?|100")

Handle = Callable[[Exchange], Awaitable[bytes]]


class ResponseRoutes:
    """All routes over one shelf."""

    def __init__(self, mesh: Mesh, shelf: Shelf) -> None:
        self._mesh, self._shelf = mesh, shelf
        self._serve = audited(mesh, pipeline.serve)
        self._leaving: set[asyncio.Task[None]] = set()

    async def create(self, wire: Exchange) -> None:
        """POST /v1/responses."""
        call = StoredCall(self._mesh, wire, self._shelf)
        try:
            await self._serve(self._mesh, call)
            await call.settle()
        finally:
            if (leaving := call.leave()) is not None:
                self._leaving.add(leaving)
                leaving.add_done_callback(self._leaving.discard)

    def methods(self, path: bytes) -> dict[str, Handle]:
        """What may be done at a path under PREFIX. Raises RequestError (NOT_FOUND)."""
        found = _PATH.fullmatch(path)
        if found is None:
            raise not_found()
        return {"GET": self._input_items} if found[2] else {"GET": self._get, "DELETE": self._delete}

    async def purge(self, wish: PurgeWish) -> bool:
        """What a purge of the cache destroys here too: a tenant's or a person's. False: not confirmed yet."""
        return not wish.tenant or await self._shelf.purge(wish.tenant, wish.person)

    async def _get(self, wire: Exchange) -> bytes:
        tenant, response_id, query = self._asked(wire, "stream")
        if query.get("stream", "false") != "false":
            raise invalid("stream", "true is not supported by this server: a stored response is given whole")
        turn = await self._shelf.get(tenant, response_id)
        return msgspec.json.encode(turn.response)

    async def _delete(self, wire: Exchange) -> bytes:
        tenant, response_id, _ = self._asked(wire)
        await self._shelf.delete(tenant, response_id)
        return msgspec.json.encode({"id": response_id, "object": "response", "deleted": True})

    async def _input_items(self, wire: Exchange) -> bytes:
        tenant, response_id, query = self._asked(wire, "limit", "order", "after")
        limit, order = query.get("limit", "20"), query.get("order", "desc")
        if not _LIMIT.fullmatch(limit):
            raise invalid("limit", "must be a whole number from 1 to 100")
        if order not in ("asc", "desc"):
            raise invalid("order", "must be asc or desc")
        turn = await self._shelf.get(tenant, response_id)
        page = input_list(response_id, turn.items, int(limit), query.get("after", ""), newest=order == "desc")
        return msgspec.json.encode(page)

    def _asked(self, wire: Exchange, *known: str) -> tuple[str, str, dict[str, str]]:
        """Tenant, id, and the query, of which only `known` names are. Raises AuthError, RequestError."""
        found = _PATH.fullmatch(wire.path)
        assert found is not None
        principal = self._mesh.identity.authenticate(credential(wire.headers))
        pairs = (pair.partition("=") for pair in wire.query.decode("latin-1").split("&") if pair)
        query = {name: value for name, _, value in pairs}
        for name in query:
            if name not in known:
                raise unsupported(name[:64])
        return principal.tenant, found[1].decode(), query
