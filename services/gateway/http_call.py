"""One HTTP request as the pipeline sees it: its credential, its body, and who answers it.

Rules: a shell between the connection and the pipeline; knows the wire formats of services/api, and decides nothing
about a request.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from ..answer import Responder
from ..api import encode
from ..api.headers import HEADERS
from ..api.responses import renamed
from ..errors import ClientGone, MeshError, RequestError
from ..outcome import Reason
from ..request import InferenceRequest
from .audit import plain_address
from .http_responders import StreamResponder, UnaryResponder, respond_error
from .httptools_exchange import BodyTooLarge, Exchange
from .identity import bearer
from .mesh import Mesh

Parse = Callable[[bytes, Mapping[str, str], Any], InferenceRequest]
_WISHES = frozenset(name.encode() for name in HEADERS)
_NO_WISHES: Mapping[str, str] = {}
_REQUEST_ID = re.compile(rb"[A-Za-z0-9_.:-]{1,64}")


class HttpCall:
    """One HTTP request as the pipeline sees it (pipeline.Call)."""

    __slots__ = (
        "_headers",
        "_mesh",
        "_parse",
        "_paused",
        "_wire",
        "_writable",
        "protocol",
        "request_id",
        "traceparent",
    )

    def __init__(self, mesh: Mesh, wire: Exchange, parse: Parse) -> None:
        self._mesh, self._wire, self._parse = mesh, wire, parse
        self._headers = wire.headers
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

    @property
    def address(self) -> str:
        """Of the client, or of what stands before us."""
        return self._wire.address

    @property
    def forwarded_for(self) -> str:
        """Whom the last load balancer says that it forwards for; "" where nobody does."""
        return plain_address(self._text(b"x-forwarded-for"))

    @property
    def endpoint(self) -> str:
        """Only of routes that exist."""
        return self._wire.path.decode("ascii", "replace")

    def _text(self, name: bytes) -> str:
        return self._headers.get(name, b"").decode("latin-1")

    async def read(self) -> InferenceRequest:
        """The body, bounded, parsed and checked."""
        body, wishes = await self.received()
        return self._parse(body, wishes, self._mesh.config.limits)

    async def received(self) -> tuple[bytes, Mapping[str, str]]:
        """The body, bounded, and the headers that are wishes. Raises RequestError, ClientGone."""
        limits = self._mesh.config.limits
        if self._text(b"content-encoding").lower() not in ("", "identity"):
            raise RequestError(
                Reason.UNSUPPORTED_FIELD,
                "content-encoding is not supported: send the body as it is",
                param="content-encoding",
            )
        declared = self._headers.get(b"content-length", b"")
        if declared.isdigit() and int(declared) > limits.max_body_bytes:
            raise too_large(limits.max_body_bytes)
        body = await whole_body(self._wire, limits.max_body_bytes)
        if _WISHES.isdisjoint(self._headers):
            return body, _NO_WISHES
        return body, {name: self._text(name.encode()) for name in HEADERS if name.encode() in self._headers}

    def responder(self, request: InferenceRequest) -> Responder:
        self._wire.welcome()
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


class ResponsesCall(HttpCall):
    """One of the Responses API: what the pipeline refuses is told in the words of its body."""

    __slots__ = ()

    def responder(self, request: InferenceRequest) -> Responder:
        return _Renaming(super().responder(request))

    def fail(self, error: MeshError) -> None:
        super().fail(renamed(error))


class _Renaming:
    """A Responder whose errors name other fields."""

    __slots__ = ("_responder", "begin", "delta", "end")

    def __init__(self, responder: Responder) -> None:
        self._responder = responder
        self.begin, self.delta, self.end = responder.begin, responder.delta, responder.end

    @property
    def buffered_bytes(self) -> int:
        return self._responder.buffered_bytes

    def fail(self, error: MeshError) -> None:
        self._responder.fail(renamed(error))


async def whole_body(wire: Exchange, max_bytes: int) -> bytes:
    """Raises RequestError, ClientGone."""
    try:
        body = await wire.body(max_bytes)
    except BodyTooLarge:
        raise too_large(max_bytes) from None
    if body is None:
        raise ClientGone(Reason.CLIENT_CANCELLED, "the client went away while sending")
    return body


def too_large(max_bytes: int) -> RequestError:
    return RequestError(Reason.BODY_TOO_LARGE, f"the body is larger than {max_bytes} bytes")


def credential(headers: Mapping[bytes, bytes]) -> str:
    """The API key among the headers, or ""."""
    authorization = headers.get(b"authorization", b"")
    if authorization[:7] == b"Bearer " and (
        token := authorization[7:].strip()
    ):  # as nearly everybody says it
        return token.decode("latin-1")
    return bearer(authorization.decode("latin-1"), headers.get(b"x-api-key", b"").decode("latin-1"))
