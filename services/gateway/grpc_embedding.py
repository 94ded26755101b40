"""The Embed call as embeddings.py sees it (EmbedCall)."""

from __future__ import annotations

from collections.abc import Callable

from ..answer import AllowanceLeft
from ..api import embeddings as wire_format
from ..api.embeddings import EmbeddingRequest
from ..config import LimitsConfig
from ..embedding.service import Embedded
from ..errors import MeshError
from ..request import Usage


class GrpcEmbedCall:
    """One call: afterwards either `body` or `error` is set. grpc cancels the handler when the client goes."""

    protocol = "grpc"

    def __init__(
        self,
        data: bytes,
        metadata: dict[str, str],
        left_s: float | None,
        limits: LimitsConfig,
        *,
        request_id: str,
        credential: str,
        welcome: Callable[[], None],
    ) -> None:
        self._data, self._metadata, self._left_s, self._limits = data, metadata, left_s, limits
        self.request_id, self.credential, self._welcome = request_id, credential, welcome
        self.traceparent = metadata.get("traceparent", "")
        self.address, self.endpoint = "", "Embed"
        self.body = b""
        self.error: MeshError | None = None

    async def read_embedding(self) -> EmbeddingRequest:
        return wire_format.embedding_from_bytes(self._data, self._metadata, self._left_s, self._limits)

    def welcome(self, callback: Callable[[], None]) -> None:
        self._welcome()

    def encode(self, request: EmbeddingRequest, found: Embedded, model: str, usage: Usage) -> bytes:
        return wire_format.message(found.vectors, found.dimensions, model, usage)

    def reply(self, body: bytes, left: AllowanceLeft | None) -> None:
        self.body = body

    def fail(self, error: MeshError) -> None:
        self.error = error
