"""Reason → HTTP status, gRPC code, OpenAI error type and code: the one exhaustive table.

Rules: every `Reason` has exactly one row (a missing one fails the import, hence the build), and `code` tells
the reasons apart on HTTP as `google.rpc.ErrorInfo.reason` does on gRPC. Knows no wire format and no server.
Where OpenAI has a word of its own for a case, that word is the code, because client libraries look for it.

Two choices that are not obvious:
- Refusals that the same request would get again carry no 409, 408 or 429: OpenAI's SDKs repeat those.
- Too much work for one client is 429 (its fault, slow down), too much for the mesh is 503 (go elsewhere).
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from ..outcome import Reason


class GrpcCode(IntEnum):
    """gRPC's canonical codes (google/rpc/code.proto), so that pure code can name them without grpc."""

    CANCELLED = 1
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


class Status(NamedTuple):
    """One row. `http` is the status line, `kind` is OpenAI's `error.type`, `code` its `error.code`."""

    http: int
    grpc: GrpcCode
    kind: str
    code: str


_G = GrpcCode
_INVALID = "invalid_request_error"
_SERVER = "server_error"
_BUSY = "overloaded_error"

STATUS: dict[Reason, Status] = {
    Reason.INVALID_JSON: Status(400, _G.INVALID_ARGUMENT, _INVALID, "invalid_json"),
    Reason.INVALID_FIELD: Status(400, _G.INVALID_ARGUMENT, _INVALID, "invalid_field"),
    Reason.UNSUPPORTED_FIELD: Status(400, _G.INVALID_ARGUMENT, _INVALID, "unsupported_field"),
    Reason.BODY_TOO_LARGE: Status(413, _G.RESOURCE_EXHAUSTED, _INVALID, "body_too_large"),
    Reason.CONTEXT_TOO_LONG: Status(400, _G.INVALID_ARGUMENT, _INVALID, "context_length_exceeded"),
    Reason.NOT_FOUND: Status(404, _G.NOT_FOUND, _INVALID, "not_found"),
    Reason.METHOD_NOT_ALLOWED: Status(405, _G.UNIMPLEMENTED, _INVALID, "method_not_allowed"),
    Reason.MODEL_NOT_FOUND: Status(404, _G.NOT_FOUND, _INVALID, "model_not_found"),
    Reason.CONTENT_BLOCKED: Status(400, _G.INVALID_ARGUMENT, _INVALID, "content_filter"),
    Reason.POISON_REQUEST: Status(422, _G.FAILED_PRECONDITION, _INVALID, "poison_request"),
    Reason.IDEMPOTENCY_CONFLICT: Status(422, _G.ALREADY_EXISTS, _INVALID, "idempotency_conflict"),
    Reason.PREVIOUS_RESPONSE_NOT_FOUND: Status(400, _G.NOT_FOUND, _INVALID, "previous_response_not_found"),
    Reason.RESUME_EXPIRED: Status(410, _G.FAILED_PRECONDITION, _INVALID, "resume_expired"),
    Reason.RESUME_DIVERGED: Status(410, _G.ABORTED, _SERVER, "resume_diverged"),
    Reason.UNAUTHENTICATED: Status(401, _G.UNAUTHENTICATED, _INVALID, "invalid_api_key"),
    Reason.FORBIDDEN: Status(403, _G.PERMISSION_DENIED, "permission_error", "forbidden"),
    Reason.RATE_LIMITED: Status(429, _G.RESOURCE_EXHAUSTED, "rate_limit_error", "rate_limit_exceeded"),
    Reason.QUOTA_EXCEEDED: Status(429, _G.RESOURCE_EXHAUSTED, "insufficient_quota", "insufficient_quota"),
    Reason.QUEUE_FULL: Status(429, _G.RESOURCE_EXHAUSTED, _BUSY, "queue_full"),
    Reason.SHED: Status(503, _G.UNAVAILABLE, _BUSY, "shed"),
    Reason.DEADLINE_UNREACHABLE: Status(503, _G.UNAVAILABLE, _BUSY, "deadline_unreachable"),
    Reason.DEADLINE_EXCEEDED: Status(504, _G.DEADLINE_EXCEEDED, _SERVER, "deadline_exceeded"),
    Reason.NOT_READY: Status(503, _G.UNAVAILABLE, _SERVER, "not_ready"),
    Reason.CLIENT_CANCELLED: Status(499, _G.CANCELLED, _INVALID, "client_cancelled"),
    Reason.SLOW_READER: Status(408, _G.ABORTED, _INVALID, "slow_reader"),
    Reason.REQUEST_TIMEOUT: Status(408, _G.DEADLINE_EXCEEDED, _INVALID, "request_timeout"),
    Reason.ENGINE_LOST: Status(503, _G.UNAVAILABLE, _SERVER, "engine_lost"),
    Reason.DRAINING: Status(503, _G.UNAVAILABLE, _SERVER, "draining"),
    Reason.STORE_UNAVAILABLE: Status(503, _G.UNAVAILABLE, _SERVER, "store_unavailable"),
    Reason.AUDIT_UNAVAILABLE: Status(503, _G.UNAVAILABLE, _SERVER, "audit_unavailable"),
    Reason.INTERNAL: Status(500, _G.INTERNAL, _SERVER, "internal"),
}
"""Every reason's row."""

REASON_BY_CODE: dict[str, Reason] = {status.code: reason for reason, status in STATUS.items()}
"""OpenAI's `error.code` back to the reason, for clients and tests."""

if _missing := set(Reason) - set(STATUS):
    raise AssertionError(f"reasons without a row: {sorted(_missing)}")
