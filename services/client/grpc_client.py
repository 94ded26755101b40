"""MeshClient over grpc.aio. See the package's docstring for an example."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol, Self, TypeVar

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from services.api._generated.expertmesh.v1 import inference_pb2 as pb

__all__ = ["CallFailed", "MeshClient", "assistant", "pb", "system", "user"]

SERVICE = "/expertmesh.v1.Inference/"
_OPTIONS = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
)


class ProtoMessage(Protocol):
    """What every message of the proto can do."""

    def SerializeToString(self) -> bytes: ...
    @staticmethod
    def FromString(s: bytes) -> Any: ...


A = TypeVar("A", bound=ProtoMessage)


class CallFailed(Exception):
    """The mesh said no. `reason` is its word for why (QUEUE_FULL, INVALID_FIELD, …; "" when the connection
    failed before the mesh could say), `param` the offending field, `retry_after_s` an honest estimate or
    None."""

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        reason: str = "",
        param: str = "",
        retry_after_s: float | None = None,
        request_id: str = "",
    ) -> None:
        super().__init__(f"{reason or code.name}: {message}")
        self.code, self.message, self.reason, self.param = code, message, reason, param
        self.retry_after_s, self.request_id = retry_after_s, request_id


def system(content: str) -> pb.Message:
    """Instructions."""
    return pb.Message(role=pb.ROLE_SYSTEM, content=content)


def user(content: str) -> pb.Message:
    """A turn of the person."""
    return pb.Message(role=pb.ROLE_USER, content=content)


def assistant(content: str) -> pb.Message:
    """A turn of the model."""
    return pb.Message(role=pb.ROLE_ASSISTANT, content=content)


class MeshClient:
    """One connection, any number of calls at once. `deadline_s` is how long a whole answer may take: it
    becomes the request's deadline in the mesh. Leaving an `async for` early, or cancelling the task, frees
    the slot."""

    def __init__(
        self,
        address: str,
        api_key: str,
        *,
        deadline_s: float | None = None,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        self._metadata = (("authorization", f"Bearer {api_key}"),)
        self._deadline_s = deadline_s
        if credentials is None:
            self._channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
        else:
            self._channel = grpc.aio.secure_channel(address, credentials, options=_OPTIONS)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; running calls end with CANCELLED."""
        await self._channel.close()

    async def chat(self, request: pb.ChatRequest) -> pb.ChatResponse:
        """Answer a chat, whole. Raises CallFailed."""
        return await self._whole("GenerateChat", request, pb.ChatResponse)

    async def text(self, request: pb.TextRequest) -> pb.TextResponse:
        """Continue texts, whole. Raises CallFailed."""
        return await self._whole("GenerateText", request, pb.TextResponse)

    def stream_chat(self, request: pb.ChatRequest) -> AsyncIterator[pb.StreamEvent]:
        """Answer a chat: one `begin`, `delta`s, one `end`. Raises CallFailed."""
        return self._stream("StreamChat", request)

    def stream_text(self, request: pb.TextRequest) -> AsyncIterator[pb.StreamEvent]:
        """Continue texts: one `begin`, `delta`s, one `end`. Raises CallFailed."""
        return self._stream("StreamText", request)

    async def embed(self, request: pb.EmbedRequest) -> pb.EmbedResponse:
        """Turn texts into vectors, one each, in order. Raises CallFailed."""
        return await self._whole("Embed", request, pb.EmbedResponse)

    async def models(self) -> list[str]:
        """Names of the models that are served. Raises CallFailed."""
        answer = await self._whole("ListModels", pb.ListModelsRequest(), pb.ListModelsResponse)
        return [model.id for model in answer.models]

    async def _whole(self, method: str, request: ProtoMessage, answer: type[A]) -> A:
        call = self._channel.unary_unary(SERVICE + method, _serialize, _reader(answer))
        try:
            return await call(request, timeout=self._deadline_s, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise _failed(error) from None

    async def _stream(self, method: str, request: ProtoMessage) -> AsyncIterator[pb.StreamEvent]:
        multi = self._channel.unary_stream(SERVICE + method, _serialize, _reader(pb.StreamEvent))
        call = multi(request, timeout=self._deadline_s, metadata=self._metadata)
        try:
            async for event in call:
                yield event
        except grpc.aio.AioRpcError as error:
            raise _failed(error) from None
        finally:
            call.cancel()


def _serialize(message: ProtoMessage) -> bytes:
    return message.SerializeToString()


def _reader(kind: type[A]) -> Callable[[bytes], A]:
    return kind.FromString


def _failed(error: grpc.aio.AioRpcError) -> CallFailed:
    """The status with its google.rpc details."""
    trailers = dict(error.trailing_metadata() or ())
    info, retry = ErrorInfo(), RetryInfo()
    retry_after_s: float | None = None
    details = trailers.get("grpc-status-details-bin", b"")
    try:
        status = Status.FromString(details if isinstance(details, bytes) else b"")
    except DecodeError:
        status = Status()
    for detail in status.details:
        if detail.Unpack(retry):
            retry_after_s = retry.retry_delay.ToMilliseconds() / 1000
        else:
            detail.Unpack(info)
    return CallFailed(
        error.code(),
        error.details() or "",
        info.reason,
        info.metadata.get("param", ""),
        retry_after_s,
        str(trailers.get("x-request-id", "")),
    )
