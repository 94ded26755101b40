"""The HTTP routes: from bytes to a call of the pipeline, and nothing else.

Rules: an ASGI application; routes are matched on the raw path (a decoded one can be made to differ from what was
authorised, CVE-2026-48746), and each declares the permission it needs or that it is public. Knows the wire formats
of services/api; every decision about a request is the pipeline's.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, NamedTuple

import msgspec

from ..answer import Responder
from ..api import encode, openai
from ..api.headers import HEADERS
from ..errors import ClientGone, MeshError, RequestError
from ..outcome import Reason
from ..request import InferenceRequest
from . import pipeline
from .http_responders import JSON, StreamResponder, UnaryResponder, head_lines, respond_error
from .identity import Permission, bearer
from .mesh import Mesh
from .operator_routes import needed, operate_queue, read_purge
from .uvicorn_server import Exchange

log = logging.getLogger(__name__)

Receive = Callable[[], Awaitable[dict[str, Any]]]
Parse = Callable[[bytes, Mapping[str, str], Any], InferenceRequest]
PUBLIC = None
MAX_OPERATOR_BODY_BYTES = 65_536
_WISHES = frozenset(name.encode() for name in HEADERS)
_NO_WISHES: Mapping[str, str] = {}
_REQUEST_ID = re.compile(rb"[A-Za-z0-9_.:-]{1,64}")


class HttpCall:
    """One HTTP request as the pipeline sees it (pipeline.Call)."""

    def __init__(self, mesh: Mesh, scope: Mapping[str, Any], receive: Receive, parse: Parse) -> None:
        self._mesh, self._receive, self._parse = mesh, receive, parse
        self._wire: Exchange = scope["exchange"]
        self._headers: dict[bytes, bytes] = dict(scope["headers"])
        wanted = self._headers.get(b"x-request-id")
        known = wanted is not None and _REQUEST_ID.fullmatch(wanted)
        self.request_id = wanted.decode() if wanted is not None and known else mesh.new_request_id()
        self.traceparent = self._text(b"traceparent") if b"traceparent" in self._headers else ""
        self.protocol = "http"
        self._writable: Callable[[], None] | None = None
        self._paused: Callable[[], None] | None = None

    @property
    def credential(self) -> str:
        return credential(self._headers)

    def _text(self, name: bytes) -> str:
        return self._headers.get(name, b"").decode("latin-1")

    async def read(self) -> InferenceRequest:
        """The body, bounded, parsed and checked."""
        limits = self._mesh.config.limits
        declared = self._headers.get(b"content-length", b"")
        if declared.isdigit() and int(declared) > limits.max_body_bytes:
            raise too_large(limits.max_body_bytes)
        message = await self._receive()
        body = message.get("body", b"")
        while message.get("more_body"):
            message = await self._receive()
            body += message.get("body", b"")
            if len(body) > limits.max_body_bytes:
                raise too_large(limits.max_body_bytes)
        if message["type"] == "http.disconnect":
            raise ClientGone(Reason.CLIENT_CANCELLED, "the client went away while sending")
        if _WISHES.isdisjoint(self._headers):
            return self._parse(body, _NO_WISHES, limits)
        wishes = {name: self._text(name.encode()) for name in HEADERS if name.encode() in self._headers}
        return self._parse(body, wishes, limits)

    def responder(self, request: InferenceRequest) -> Responder:
        if not request.stream:
            return UnaryResponder(self._wire, encode.unary(request), self.request_id)
        responder = StreamResponder(self._wire, encode.stream(request), self.request_id)
        self._writable, self._paused = responder.writable, responder.paused
        return responder

    def on_gone(self, callback: Callable[[], None]) -> None:
        """Call back once if the client cuts the connection before its answer is complete."""
        if self._wire.closed:
            callback()
        self._wire.watch(on_close=callback, on_writable=self._writable, on_paused=self._paused)

    def fail(self, error: MeshError) -> None:
        respond_error(self._wire, error, self.request_id)


def too_large(max_bytes: int) -> RequestError:
    return RequestError(Reason.BODY_TOO_LARGE, f"the body is larger than {max_bytes} bytes")


def credential(headers: Mapping[bytes, bytes]) -> str:
    """The API key among the headers, or ""."""
    authorization = headers.get(b"authorization", b"")
    if authorization[:7] == b"Bearer " and (token := authorization[7:].strip()):  # as nearly everybody says it
        return token.decode("latin-1")
    return bearer(authorization.decode("latin-1"), headers.get(b"x-api-key", b"").decode("latin-1"))


class Route(NamedTuple):
    """`handle` answers; `permission` PUBLIC (None) is a decision too, and tested. `checked_here` False: the pipeline
    checks it, in its own order. `local` True: processes of this host need no key (Prometheus beside us)."""

    handle: Callable[[Mapping[str, Any], Receive], Awaitable[None]]
    permission: Permission | None
    checked_here: bool = True
    local: bool = False


def trusted(route: Route, scope: Mapping[str, Any]) -> bool:
    """A process on this host asks for what is open to those."""
    client = scope.get("client")
    return route.local and client is not None and (client[0] == "::1" or client[0].startswith("127."))


class HttpApp:
    """ASGI application over one Mesh."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self.routes: dict[bytes, dict[str, Route]] = {
            b"/v1/chat/completions": {"POST": self._generating(openai.parse_chat)},
            b"/v1/completions": {"POST": self._generating(openai.parse_completion)},
            b"/generate": {"POST": self._generating(openai.parse_generate)},
            b"/v1/models": {"GET": Route(self._models, Permission.GENERATE)},
            b"/metrics": {"GET": Route(self._metrics, Permission.METRICS, local=True)},
            b"/healthz": {"GET": Route(self._healthz, PUBLIC)},
            b"/-/healthz": {"GET": Route(self._healthz, PUBLIC)},  # what KubeRay's probe asks for
            b"/readyz": {"GET": Route(self._readyz, PUBLIC)},
            b"/openapi.json": {"GET": Route(self._openapi, PUBLIC)},
            b"/admin/cache": {"GET": Route(self._cache_stats, Permission.OPERATE)},
            b"/admin/cache/purge": {"POST": Route(self._cache_purge, Permission.OPERATE)},
            b"/admin/queue": {"POST": Route(self._queue, Permission.OPERATE)},
        }

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Any) -> None:
        wire: Exchange = scope["exchange"]
        try:
            route = self._route(scope)
            if route.permission is not None and route.checked_here and not trusted(route, scope):
                self._mesh.identity.authenticate(credential(dict(scope["headers"]))).require(route.permission)
            await route.handle(scope, receive)
        except MeshError as error:
            respond_error(wire, error, self._mesh.new_request_id())
        except asyncio.CancelledError:
            if not wire.left:
                raise  # not the client: we are being shut down
        finally:
            wire.flush()
            scope.pop("exchange")  # it knows its cycle, which knows the scope: see Generation.let_go

    def _route(self, scope: Mapping[str, Any]) -> Route:
        raw_path = scope["raw_path"]
        methods = self.routes.get(raw_path)
        if methods is None and raw_path.startswith(b"/v1/models/"):
            methods = {"GET": Route(self._model, Permission.GENERATE)}
        if methods is None:
            raise RequestError(Reason.NOT_FOUND, f"there is no {raw_path[:64].decode('ascii', 'replace')}")
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        if method not in methods:
            allowed = ", ".join(methods)
            raise RequestError(
                Reason.METHOD_NOT_ALLOWED,
                f"{scope['method']} is not allowed here, {allowed} is",
                param=allowed,
            )
        return methods[method]

    def _generating(self, parse: Parse) -> Route:
        async def generate(scope: Mapping[str, Any], receive: Receive) -> None:
            await pipeline.serve(self._mesh, HttpCall(self._mesh, scope, receive, parse))

        return Route(generate, Permission.GENERATE, checked_here=False)

    def _respond(
        self, scope: Mapping[str, Any], body: bytes, headers: bytes = JSON, status: int = 200
    ) -> None:
        wire: Exchange = scope["exchange"]
        wire.respond(status, headers + head_lines(self._mesh.new_request_id()), body)

    async def _models(self, scope: Mapping[str, Any], receive: Receive) -> None:
        self._respond(scope, encode.models(await self._names(scope), self._mesh.started_unix_s))

    async def _names(self, scope: Mapping[str, Any]) -> tuple[str, ...]:
        principal = self._mesh.identity.authenticate(credential(dict(scope["headers"])))
        return await self._mesh.models_for(principal)

    async def _model(self, scope: Mapping[str, Any], receive: Receive) -> None:
        name = scope["raw_path"][len(b"/v1/models/") :].decode("ascii", "replace")
        if name not in await self._names(scope):
            raise RequestError(
                Reason.MODEL_NOT_FOUND, f"the model '{name[:64]}' does not exist", param="model"
            )
        self._respond(scope, encode.model(name, self._mesh.started_unix_s))

    async def _metrics(self, scope: Mapping[str, Any], receive: Receive) -> None:
        self._respond(
            scope,
            self._mesh.telemetry.render(),
            b"content-type: text/plain; version=0.0.4; charset=utf-8\r\n",
        )

    async def _healthz(self, scope: Mapping[str, Any], receive: Receive) -> None:
        self._respond(scope, b"success", b"content-type: text/plain\r\n")

    async def _readyz(self, scope: Mapping[str, Any], receive: Receive) -> None:
        ready, why = self._mesh.readiness.verdict(self._mesh.clock.now_s())
        self._respond(scope, why.encode(), b"content-type: text/plain\r\n", 200 if ready else 503)

    async def _openapi(self, scope: Mapping[str, Any], receive: Receive) -> None:
        self._respond(scope, self._mesh.openapi)

    async def _cache_stats(self, scope: Mapping[str, Any], receive: Receive) -> None:
        """The Cache's figures, and this gateway's own: local hits and what they saved."""
        figures = await needed(self._mesh.cache_operations).stats()
        gateway = msgspec.to_builtins(self._mesh.cache.stats())
        self._respond(scope, msgspec.json.encode({"cache": figures, "gateway": gateway}))

    async def _cache_purge(self, scope: Mapping[str, Any], receive: Receive) -> None:
        body = await _small_body(receive)
        result = await needed(self._mesh.cache_operations).purge(read_purge(body))
        self._respond(scope, msgspec.json.encode(result))

    async def _queue(self, scope: Mapping[str, Any], receive: Receive) -> None:
        """Releases and workers (services/queue/rollout/operations.py)."""
        result = await operate_queue(self._mesh.queue_operate, await _small_body(receive))
        self._respond(scope, msgspec.json.encode(result))


async def _small_body(receive: Receive) -> bytes:
    """An operator's. Raises RequestError."""
    body = b""
    more = True
    while more and len(body) <= MAX_OPERATOR_BODY_BYTES:
        message = await receive()
        body += message.get("body", b"")
        more = bool(message.get("more_body"))
    if more:
        raise too_large(MAX_OPERATOR_BODY_BYTES)
    return body
