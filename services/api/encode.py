"""What HTTP says: the right encoder for a request, error bodies, the list of models. The door to encode_*.py.

Rules: pure. `stream` and `unary` choose by the request's kind; nobody else looks at it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from ..errors import MeshError
from ..outcome import Reason
from ..request import InferenceRequest
from .encode_parts import dumps, error_fields
from .encode_responses import ResponsesStreamEncoder, ResponsesUnaryEncoder
from .encode_stream import ChatStreamEncoder, CompletionStreamEncoder, EventEncoder
from .encode_unary import ChatUnaryEncoder, CompletionUnaryEncoder, GenerateUnaryEncoder, UnaryEncoder
from .responses import ResponsesRequest
from .status import STATUS

__all__ = ["EventEncoder", "UnaryEncoder", "error_response", "model", "models", "stream", "unary"]


def stream(request: InferenceRequest) -> EventEncoder:
    """Encoder of a streamed answer; of its rest, when the request names the last event that the client has."""
    if isinstance(request, ResponsesRequest):
        return ResponsesStreamEncoder(request.told)
    kind = ChatStreamEncoder if request.kind == "chat" else CompletionStreamEncoder
    return kind(
        request.num_choices,
        include_usage=request.include_usage,
        confidence=request.confidence,
        resume_after=request.last_event_id,
    )


def unary(request: InferenceRequest) -> UnaryEncoder:
    """Encoder of a whole answer."""
    if isinstance(request, ResponsesRequest):
        return ResponsesUnaryEncoder(request.told)
    if request.kind == "chat":
        return ChatUnaryEncoder(request.num_choices)
    if request.kind == "completion":
        return CompletionUnaryEncoder(request.num_choices)
    return GenerateUnaryEncoder(request.num_choices)


def error_response(error: MeshError) -> tuple[int, bytes, bytes]:
    """(status, header lines, JSON body). Retry-After in whole seconds (RFC 9110 §10.2.3), and in milliseconds
    as OpenAI's SDKs read it, when there is an estimate."""
    status = STATUS[error.reason]
    headers = b"content-type: application/json\r\n"
    if error.retry_after_s is not None and math.isfinite(error.retry_after_s):
        wait_s = max(error.retry_after_s, 0.0)
        headers += b"retry-after: %d\r\nretry-after-ms: %d\r\n" % (max(1, math.ceil(wait_s)), wait_s * 1000)
    if status.http == 405 and error.param and error.param.isprintable():
        headers += b"allow: %b\r\n" % error.param.encode("ascii", "replace")
    if error.reason is Reason.QUOTA_EXCEEDED:
        headers += b"x-should-retry: false\r\n"  # OpenAI's SDKs would try again within seconds, not tomorrow
    if status.http == 401:
        headers += b"www-authenticate: Bearer\r\n"
    return status.http, headers, dumps(error_fields(error))


def models(names: Iterable[str], created: int, embeds_as: str = "") -> bytes:
    """GET /v1/models. `created` is Unix seconds; `embeds_as` is the name of the one that makes embeddings."""
    return dumps({"object": "list", "data": [_model(name, created, embeds_as) for name in names]})


def model(name: str, created: int, embeds_as: str = "") -> bytes:
    """GET /v1/models/NAME."""
    return dumps(_model(name, created, embeds_as))


def _model(name: str, created: int, embeds_as: str) -> dict[str, object]:
    kind = "embedding" if name == embeds_as else "chat"
    return {"id": name, "object": "model", "created": created, "owned_by": "expertmesh", "type": kind}
