"""POST /v1/embeddings as embeddings.py sees it (EmbedCall)."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from ..answer import AllowanceLeft
from ..api import embeddings as wire_format
from ..api.embeddings import EmbeddingRequest
from ..embedding.service import Embedded
from ..request import Usage
from .http_call import HttpCall
from .http_responders import JSON, allowance_lines, head_lines


class HttpEmbedCall(HttpCall):
    """One request over HTTP."""

    __slots__ = ()

    async def read_embedding(self) -> EmbeddingRequest:
        return cast(EmbeddingRequest, await self.read())

    def welcome(self, callback: Callable[[], None]) -> None:
        self._wire.welcome()
        self.on_gone(callback)

    def encode(self, request: EmbeddingRequest, found: Embedded, model: str, usage: Usage) -> bytes:
        return wire_format.answer(found.vectors, found.dimensions, request, model, usage)

    def reply(self, body: bytes, left: AllowanceLeft | None) -> None:
        lines = JSON + head_lines(self.request_id)
        self._wire.respond(200, lines if left is None else lines + allowance_lines(left), body)
