"""The gRPC port: the same pipeline as HTTP, with gRPC's own deadlines, cancellation, health and reflection.

Rules: a shell. Bytes in and out (services/api converts), one pipeline.serve per call, no decision about a
request. Messages are read as raw bytes, because grpc answers a message that does not decode with INTERNAL and
no reason.

Limits against hostile clients are grpc's own: message and metadata sizes, streams per connection, pings
(keep-alive both ways; a client that pings too often is told ENHANCE_YOUR_CALM and cut off).
"""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from ..answer import Responder
from ..api import grpc_encode
from ..api.grpc_convert import chat_from_bytes, text_from_bytes
from ..config import LimitsConfig
from ..errors import ConfigError, MeshError, ServiceError
from ..outcome import Reason
from ..request import InferenceRequest
from . import embeddings, grpc_tls, pipeline
from .audit import audited
from .doorman import Doorman, key_of
from .grpc_embedding import GrpcEmbedCall
from .grpc_health import SERVICE, Health
from .grpc_responders import StreamResponder, UnaryResponder
from .identity import Permission, Principal, bearer
from .mesh import Mesh
from .tls import TlsFiles

log = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[bytes, bytes]
Serve = Callable[[Mesh, pipeline.Call], Awaitable[None]]
Convert = Callable[..., InferenceRequest]
Trailers = tuple[tuple[str, str | bytes], ...]

_REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_CODES = {int(code.value[0]): code for code in grpc.StatusCode}
_SLACK_BYTES = 65_536
"""Above `max_body_bytes`: what is just over the limit is refused by us, with a reason, the rest by grpc."""


class GrpcCall:
    """One call as the pipeline sees it (pipeline.Call)."""

    protocol = "grpc"

    def __init__(
        self, mesh: Mesh, data: bytes, context: Context, convert: Convert, answer: Any, door: Doorman
    ) -> None:
        self._mesh, self._data, self._context, self._door = mesh, data, context, door
        self._convert, self._answer = convert, answer
        self._metadata = text_metadata(context)
        wanted = self._metadata.get("x-request-id", "")
        self.request_id = wanted if _REQUEST_ID.fullmatch(wanted) else mesh.new_request_id()
        self.traceparent = self._metadata.get("traceparent", "")

    @property
    def credential(self) -> str:
        return credential_of(self._metadata)

    @property
    def address(self) -> str:
        """Of the client, or of what stands before us."""
        return address_of(self._context)

    @property
    def endpoint(self) -> str:
        """The method's name."""
        what = "Chat" if self._convert is chat_from_bytes else "Text"
        return f"{'Stream' if self._answer.streams else 'Generate'}{what}"

    async def read(self) -> InferenceRequest:
        """The message, parsed and checked. The call's deadline becomes the request's."""
        data, self._data = self._data, b""
        left_s = self._context.time_remaining()
        return self._convert(
            data, self._metadata, left_s, self._mesh.config.limits, stream=self._answer.streams
        )

    def responder(self, request: InferenceRequest) -> Responder:
        if self._door.enabled:
            self._door.grpc_peer(self._context.peer(), had_a_key=True)
        self._answer.expect(request)
        return self._answer

    def on_gone(self, callback: Callable[[], None]) -> None:
        """grpc cancels the handler of a call whose client is gone; the handler cancels the pipeline."""

    def fail(self, error: MeshError) -> None:
        self._answer.fail(error)


class GrpcServer:
    """Start with `start`, end with `stop`. `door` is told whose calls had a key."""

    def __init__(
        self,
        mesh: Mesh,
        serve: Serve = pipeline.serve,
        door: Doorman | None = None,
        embed: Callable[[Mesh, GrpcEmbedCall], Awaitable[None]] = embeddings.serve,
    ) -> None:
        self._mesh, self._serve, self._serve_embedding = mesh, audited(mesh, serve), audited(mesh, embed)
        self._door = door or Doorman(0, mesh.clock)
        self._health = Health(mesh, self._door)
        self._server: grpc.aio.Server | None = None

    async def start(self, host: str, port: int, *, reuse_port: bool, tls: TlsFiles | None = None) -> int:
        """Listen; returns the port. Raises ConfigError when it is taken, or TLS 1.2 spoken against the settings."""
        server = grpc.aio.server(options=server_options(self._mesh.config.limits, reuse_port))
        unary, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
        methods = {
            "GenerateChat": unary(self._unary(chat_from_bytes)),
            "StreamChat": stream(self._stream(chat_from_bytes)),
            "GenerateText": unary(self._unary(text_from_bytes)),
            "StreamText": stream(self._stream(text_from_bytes)),
            "ListModels": unary(self._list_models),
            "Embed": unary(self._embed),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = (SERVICE, "grpc.health.v1.Health", reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
        try:
            address = f"{host}:{port}"
            if tls is None:
                bound = server.add_insecure_port(address)
            else:
                bound = server.add_secure_port(address, grpc_tls.server_credentials(tls))
        except RuntimeError as error:
            await server.stop(0)
            raise ConfigError(f"gRPC cannot listen on {host}:{port}: {error}") from None
        await server.start()
        self._server = server
        if tls is not None and tls.minimum_version is ssl.TLSVersion.TLSv1_3:
            await self._only_tls_1_3(host, bound)
        return bound

    async def _only_tls_1_3(self, host: str, port: int) -> None:
        if await grpc_tls.speaks_tls_1_2(host, port):
            await self.stop(0)
            wanted = " ".join(f"{name}={value}" for name, value in grpc_tls.ONLY_TLS_1_3.items())
            raise ConfigError(
                f"gRPC would speak TLS 1.2, too: start this process with {wanted}, or allow it (minimum_version)"
            )

    async def stop(self, grace_s: float) -> None:
        """Say NOT_SERVING, take no new calls, let running ones finish for `grace_s` seconds, cut the rest."""
        self._health.drain()
        if self._server is not None:
            await self._server.stop(grace_s)

    def _unary(self, convert: Convert) -> Callable[[bytes, Context], Awaitable[bytes]]:
        async def call(data: bytes, context: Context) -> bytes:
            answer = UnaryResponder()
            call = GrpcCall(self._mesh, data, context, convert, answer, self._door)
            await self._serve(self._mesh, call)  # cancelled when the client goes: frees every slot
            if answer.error is not None:
                await abort(context, answer.error, call.request_id, served_by(answer))
            if answer.served_by:
                context.set_trailing_metadata(served_by(answer))
            return answer.body

        return call

    def _stream(self, convert: Convert) -> Callable[[bytes, Context], Awaitable[None]]:
        async def call(data: bytes, context: Context) -> None:
            answer = StreamResponder()
            call = GrpcCall(self._mesh, data, context, convert, answer, self._door)
            work = asyncio.ensure_future(self._serve(self._mesh, call))
            work.add_done_callback(answer.close)
            try:
                await answer.write_to(context.write)
            finally:  # cancelled when the client goes
                work.cancel()
            if not answer.complete:
                ended = ServiceError(Reason.DRAINING, "the gateway is going away")
                await abort(context, answer.error or ended, call.request_id, served_by(answer))
            if answer.served_by:
                context.set_trailing_metadata(served_by(answer))

        return call

    async def _list_models(self, data: bytes, context: Context) -> bytes:
        principal = await self._authorise(context)
        return grpc_encode.models(await self._mesh.models_for(principal), self._mesh.started_unix_s)

    async def _embed(self, data: bytes, context: Context) -> bytes:
        metadata = text_metadata(context)
        call = GrpcEmbedCall(
            data,
            metadata,
            context.time_remaining(),
            self._mesh.config.limits,
            request_id=self._request_id(metadata),
            credential=credential_of(metadata),
            welcome=lambda: self._door.grpc_peer(context.peer(), had_a_key=True),
        )
        call.address = address_of(context)
        await self._serve_embedding(self._mesh, call)
        if call.error is not None:
            await abort(context, call.error, call.request_id)
        return call.body

    def _request_id(self, metadata: Mapping[str, str]) -> str:
        wanted = metadata.get("x-request-id", "")
        return wanted if _REQUEST_ID.fullmatch(wanted) else self._mesh.new_request_id()

    async def _authorise(self, context: Context) -> Principal:
        metadata = text_metadata(context)
        try:
            principal = self._mesh.identity.authenticate(credential_of(metadata))
            principal.require(Permission.GENERATE)
            self._door.grpc_peer(context.peer(), had_a_key=True)
            return principal
        except MeshError as error:
            request_id = self._mesh.new_request_id()
            if (audit := self._mesh.audit) is not None:
                audit.act(
                    self._mesh.identity, credential_of(metadata), "ListModels", request_id,
                    error=error, address=address_of(context), protocol="grpc",
                )  # fmt: skip
            await abort(context, error, request_id)
            raise


def address_of(context: Context) -> str:
    """Of the peer; "" where it has none."""
    key = key_of(context.peer())
    return key[0] if key is not None else ""


async def abort(context: Context, error: MeshError, request_id: str, more: Trailers = ()) -> None:
    """End the call with a status, its google.rpc details and the request id as trailers. Never returns."""
    code, message, details = grpc_encode.status_of(error)
    trailers = (("x-request-id", request_id), ("grpc-status-details-bin", details), *more)
    await context.abort(_CODES[int(code)], message, trailers)


def served_by(answer: UnaryResponder | StreamResponder) -> Trailers:
    """Who answered, where that is not this mesh."""
    return (("x-served-by", answer.served_by),) if answer.served_by else ()


def credential_of(metadata: Mapping[str, str]) -> str:
    """The API key among the metadata, or ""."""
    return bearer(metadata.get("authorization", ""), metadata.get("x-api-key", ""))


def text_metadata(context: Context) -> dict[str, str]:
    """The call's metadata by lower-case name, without the binary ones; the last of several counts."""
    return {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}


def server_options(limits: LimitsConfig, reuse_port: bool) -> list[tuple[str, int]]:
    """grpc's own limits. Times in milliseconds. It counts connections over all addresses, not per address."""
    return [
        ("grpc.so_reuseport", int(reuse_port)),
        ("grpc.max_allowed_incoming_connections", limits.max_connections),
        ("grpc.max_connection_idle_ms", int(limits.idle_timeout_s * 1000)),
        ("grpc.max_receive_message_length", limits.max_body_bytes + _SLACK_BYTES),
        ("grpc.max_metadata_size", 8_192),
        ("grpc.absolute_max_metadata_size", 16_384),
        # What is reset counts until the client has answered a ping, so this bounds resets per round trip, too: half
        # the cost of 14,000 a second remains. Clients with more calls open more connections, as to most servers.
        ("grpc.max_concurrent_streams", 100),
        ("grpc.server_handshake_timeout_ms", int(limits.header_timeout_s * 1000)),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.max_ping_strikes", 3),
        # Who opens calls and resets them (CVE-2023-44487) is asked for a sign of life at each, and cut without one.
        ("grpc.http2.ping_on_rst_stream_percent", 100),
        ("grpc.http2.ping_timeout_ms", 5_000),
        ("grpc.http2.settings_timeout", 5_000),
    ]
