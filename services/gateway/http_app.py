"""The HTTP routes: from bytes to a call of the pipeline, and nothing else.

Rules: routes are matched on the raw path (a decoded one can be made to differ from what was
authorised, CVE-2026-48746), and each declares the permission it needs or that it is public. Knows the wire formats
of services/api; every decision about a request is the pipeline's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import NamedTuple, cast

import msgspec

from ..api import encode, openai
from ..api.embeddings import parse_embedding
from ..api.responses import parse_responses
from ..errors import MeshError, RequestError
from ..outcome import Reason
from . import console, embeddings, pipeline
from .audit import audited, plain_address
from .audit_reader import records
from .cors import Cors
from .erasure import erase, read_erase
from .http_call import HttpCall, Parse, ResponsesCall, credential, whole_body
from .http_embedding import HttpEmbedCall
from .http_responders import JSON, head_lines, respond_error
from .httptools_exchange import Exchange
from .identity import Permission
from .mesh import Mesh
from .operator_routes import needed, operate_queue, read_purge
from .response_routes import PATTERN, PREFIX, Handle, ResponseRoutes

log = logging.getLogger(__name__)

PUBLIC = None
MAX_OPERATOR_BODY_BYTES = 65_536


class Route(NamedTuple):
    """`handle` answers; `permission` PUBLIC (None) is a decision too, and tested. `checked_here` False: the pipeline
    checks it, in its own order. `local` True: processes of this host need no key (Prometheus beside us). `act`: it
    changes something, which is recorded."""

    handle: Callable[[Exchange], Awaitable[None]]
    permission: Permission | None
    checked_here: bool = True
    local: bool = False
    act: bool = False


def trusted(route: Route, wire: Exchange) -> bool:
    """A process on this host asks for what is open to those."""
    return route.local and (wire.address == "::1" or wire.address.startswith("127."))


class HttpApp:
    """All routes over one Mesh."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._stored = ResponseRoutes(mesh, mesh.shelf) if mesh.shelf is not None else None
        methods = b"GET, POST" if self._stored is None else b"GET, POST, DELETE"
        origins = mesh.config.cors_origins
        self._cors = Cors(origins, methods) if origins else None
        self.routes: dict[bytes, dict[str, Route]] = {
            b"/v1/chat/completions": {"POST": self._generating(openai.parse_chat)},
            b"/v1/completions": {"POST": self._generating(openai.parse_completion)},
            b"/v1/responses": {"POST": self._generating(parse_responses, ResponsesCall)},
            b"/generate": {"POST": self._generating(openai.parse_generate)},
            b"/v1/embeddings": {"POST": Route(self._embed, Permission.GENERATE, checked_here=False)},
            b"/v1/models": {"GET": Route(self._models, Permission.GENERATE)},
            b"/metrics": {"GET": Route(self._metrics, Permission.METRICS, local=True)},
            b"/": {"GET": Route(self._console, PUBLIC)},
            b"/healthz": {"GET": Route(self._healthz, PUBLIC)},
            b"/-/healthz": {"GET": Route(self._healthz, PUBLIC)},  # what KubeRay's probe asks for
            b"/readyz": {"GET": Route(self._readyz, PUBLIC)},
            b"/health": {"GET": Route(self._readyz, PUBLIC)},  # where probes made for vLLM and SGLang ask
            b"/openapi.json": {"GET": Route(self._openapi, PUBLIC)},
            b"/admin/cache": {"GET": Route(self._cache_stats, Permission.OPERATE)},
            b"/admin/cache/purge": {"POST": Route(self._cache_purge, Permission.OPERATE, act=True)},
            b"/admin/erase": {"POST": Route(self._erase, Permission.OPERATE, act=True)},
            b"/audit": {"POST": Route(self._audit, Permission.AUDIT, act=True)},
            b"/admin/queue": {"POST": Route(self._queue, Permission.OPERATE, act=True)},
        }
        if self._stored is not None:
            route = Route(self._stored.create, Permission.GENERATE, checked_here=False)
            self.routes[b"/v1/responses"] = {"POST": route}

    async def __call__(self, wire: Exchange) -> None:
        try:
            if self._cors is not None and self._greeted(wire, self._cors):
                return
            route = self._route(wire)
            if route.permission is not None and route.checked_here and not trusted(route, wire):
                self._mesh.identity.authenticate(credential(wire.headers)).require(route.permission)
            await route.handle(wire)
            if route.act:
                self._record(wire, None, self._mesh.new_request_id())
        except MeshError as error:
            request_id = self._mesh.new_request_id()
            self._record(wire, error, request_id)
            respond_error(wire, error, request_id)
        except asyncio.CancelledError:
            if not wire.left:
                raise  # not the client: we are being shut down
        finally:
            wire.flush()

    def _record(self, wire: Exchange, error: MeshError | None, request_id: str) -> None:
        """For the audit log: an operator's act, or what was refused before it was a call."""
        if (audit := self._mesh.audit) is not None:
            endpoint = wire.path.decode() if wire.path in self.routes else "unknown"
            if self._stored is not None and wire.path.startswith(PREFIX):
                endpoint = PATTERN
            forwarded_for = plain_address(wire.headers.get(b"x-forwarded-for", b"").decode("latin-1"))
            audit.act(
                self._mesh.identity, credential(wire.headers), endpoint, request_id,
                wire=wire, error=error, address=wire.address, forwarded_for=forwarded_for,
            )  # fmt: skip

    def _detail(self, wire: Exchange, text: str) -> None:
        if self._mesh.audit is not None:
            self._mesh.audit.detail(wire, text)

    def _greeted(self, wire: Exchange, cors: Cors) -> bool:
        """A browser asked whether it may call, and was told."""
        origin = wire.headers.get(b"origin")
        if origin is None or not cors.allows(wire.path, origin):
            return False
        if wire.method == "OPTIONS" and b"access-control-request-method" in wire.headers:
            wire.respond(200, cors.preflight(origin, wire.headers), b"")
            return True
        wire.more_headers = cors.lines(origin)
        return False

    def _route(self, wire: Exchange) -> Route:
        raw_path = wire.path
        methods = self.routes.get(raw_path)
        if methods is None and raw_path.startswith(b"/v1/models/"):
            methods = {"GET": Route(self._model, Permission.GENERATE)}
        if methods is None and self._stored is not None and raw_path.startswith(PREFIX):
            methods = self._stored_methods(self._stored, raw_path)
        if methods is None:
            raise RequestError(Reason.NOT_FOUND, f"there is no {raw_path[:64].decode('ascii', 'replace')}")
        method = "GET" if wire.method == "HEAD" else wire.method
        if method not in methods:
            allowed = ", ".join(methods)
            raise RequestError(
                Reason.METHOD_NOT_ALLOWED,
                f"{wire.method} is not allowed here, {allowed} is",
                param=allowed,
            )
        return methods[method]

    def _stored_methods(self, stored: ResponseRoutes, path: bytes) -> dict[str, Route]:
        def route(method: str, answer: Handle) -> Route:
            async def handle(wire: Exchange) -> None:
                if method == "DELETE":
                    self._detail(wire, path.decode("ascii"))
                self._respond(wire, await answer(wire))

            return Route(handle, Permission.GENERATE, act=method == "DELETE")

        return {method: route(method, answer) for method, answer in stored.methods(path).items()}

    def _generating(self, parse: Parse, kind: type[HttpCall] = HttpCall) -> Route:
        serve = audited(self._mesh, pipeline.serve)

        def generate(wire: Exchange) -> Awaitable[None]:
            return serve(self._mesh, kind(self._mesh, wire, parse))

        return Route(generate, Permission.GENERATE, checked_here=False)

    def _embed(self, wire: Exchange) -> Awaitable[None]:
        parse = cast(Parse, parse_embedding)
        serve = audited(self._mesh, embeddings.serve)
        return serve(self._mesh, HttpEmbedCall(self._mesh, wire, parse))

    def _respond(self, wire: Exchange, body: bytes, headers: bytes = JSON, status: int = 200) -> None:
        wire.respond(status, headers + head_lines(self._mesh.new_request_id()), body)

    async def _models(self, wire: Exchange) -> None:
        self._respond(
            wire, encode.models(await self._names(wire), self._mesh.started_unix_s, self._mesh.embeds_as)
        )

    async def _names(self, wire: Exchange) -> tuple[str, ...]:
        principal = self._mesh.identity.authenticate(credential(wire.headers))
        return await self._mesh.models_for(principal)

    async def _model(self, wire: Exchange) -> None:
        name = wire.path[len(b"/v1/models/") :].decode("ascii", "replace")
        if name not in await self._names(wire):
            raise RequestError(
                Reason.MODEL_NOT_FOUND, f"the model '{name[:64]}' does not exist", param="model"
            )
        self._respond(wire, encode.model(name, self._mesh.started_unix_s, self._mesh.embeds_as))

    async def _metrics(self, wire: Exchange) -> None:
        await self._mesh.telemetry.refresh()
        self._respond(
            wire,
            self._mesh.telemetry.render(),
            b"content-type: text/plain; version=0.0.4; charset=utf-8\r\n",
        )

    async def _console(self, wire: Exchange) -> None:
        if not self._mesh.config.console:
            raise RequestError(Reason.NOT_FOUND, "there is no page here (console=false)")
        self._respond(wire, console.PAGE, console.HEADERS)

    async def _healthz(self, wire: Exchange) -> None:
        self._respond(wire, b"success", b"content-type: text/plain\r\n")

    async def _readyz(self, wire: Exchange) -> None:
        ready, why = self._mesh.verdict()
        self._respond(wire, why.encode(), b"content-type: text/plain\r\n", 200 if ready else 503)

    async def _openapi(self, wire: Exchange) -> None:
        self._respond(wire, self._mesh.openapi)

    async def _cache_stats(self, wire: Exchange) -> None:
        """The Cache's figures, and this gateway's own: local hits and what they saved."""
        figures = await needed(self._mesh.cache_operations).stats()
        gateway = msgspec.to_builtins(self._mesh.cache.stats())
        self._respond(wire, msgspec.json.encode({"cache": figures, "gateway": gateway}))

    async def _cache_purge(self, wire: Exchange) -> None:
        body = await whole_body(wire, MAX_OPERATOR_BODY_BYTES)
        wish = read_purge(body)
        if (audit := self._mesh.audit) is not None:
            shown = msgspec.structs.replace(wish, person=audit.person(wish.tenant, wish.person))
            self._detail(wire, msgspec.json.encode(shown).decode())
        result = await needed(self._mesh.cache_operations).purge(wish)
        if self._stored is not None:
            result["confirmed"] = await self._stored.purge(wish) and bool(result["confirmed"])
        self._respond(wire, msgspec.json.encode(result))

    async def _erase(self, wire: Exchange) -> None:
        """A person's data, everywhere (erasure.py)."""
        body = await whole_body(wire, MAX_OPERATOR_BODY_BYTES)
        wish = read_erase(body)
        principal = self._mesh.identity.authenticate(credential(wire.headers))
        if (audit := self._mesh.audit) is not None:
            shown = msgspec.structs.replace(wish, person=audit.person(wish.tenant, wish.person))
            self._detail(wire, msgspec.json.encode(shown).decode())
        self._respond(wire, msgspec.json.encode(await erase(self._mesh, wish, principal.key_id)))

    async def _audit(self, wire: Exchange) -> None:
        """Records of this gateway's host, for auditors."""
        body = await whole_body(wire, MAX_OPERATOR_BODY_BYTES)
        self._detail(wire, body.decode("utf-8", "replace"))
        lines = await records(self._mesh.config.audit.directory, body)
        self._respond(wire, lines, b"content-type: application/x-ndjson\r\n")

    async def _queue(self, wire: Exchange) -> None:
        """Releases and workers (services/queue/rollout/operations.py)."""
        body = await whole_body(wire, MAX_OPERATOR_BODY_BYTES)
        self._detail(wire, body.decode("utf-8", "replace"))
        result = await operate_queue(self._mesh.queue_operate, body)
        self._respond(wire, msgspec.json.encode(result))
