"""What can become of a request, as values with few distinct ones: fit for a metric label.

Rules: expected results live here, failures in errors.py. Each `Reason` is mapped to HTTP, gRPC and OpenAI's error
body by the one exhaustive table in api/status.py; a reason without a row fails the build.
"""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """How a request ended (house style: rejected before the queue, evicted after it, preempted while running)."""

    COMPLETED = "completed"
    REJECTED = "rejected"
    EVICTED = "evicted"
    CANCELLED = "cancelled"
    FAILED = "failed"


class Reason(StrEnum):
    """Why a request did not complete, or was paused."""

    # The request itself is wrong.
    INVALID_JSON = "invalid_json"
    INVALID_FIELD = "invalid_field"
    UNSUPPORTED_FIELD = "unsupported_field"
    BODY_TOO_LARGE = "body_too_large"
    CONTEXT_TOO_LONG = "context_too_long"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    MODEL_NOT_FOUND = "model_not_found"
    CONTENT_BLOCKED = "content_blocked"
    POISON_REQUEST = "poison_request"
    IDEMPOTENCY_CONFLICT = "idempotency_conflict"
    PREVIOUS_RESPONSE_NOT_FOUND = "previous_response_not_found"
    RESUME_EXPIRED = "resume_expired"
    RESUME_DIVERGED = "resume_diverged"
    # Who asks.
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    # There is too much to do.
    RATE_LIMITED = "rate_limited"
    QUOTA_EXCEEDED = "quota_exceeded"
    QUEUE_FULL = "queue_full"
    SHED = "shed"
    DEADLINE_UNREACHABLE = "deadline_unreachable"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    NOT_READY = "not_ready"
    # The client.
    CLIENT_CANCELLED = "client_cancelled"
    SLOW_READER = "slow_reader"
    REQUEST_TIMEOUT = "request_timeout"
    # Us.
    ENGINE_LOST = "engine_lost"
    DRAINING = "draining"
    STORE_UNAVAILABLE = "store_unavailable"
    AUDIT_UNAVAILABLE = "audit_unavailable"
    INTERNAL = "internal"
