"""The one table from reasons to wires."""

from services.api.status import REASON_BY_CODE, STATUS, GrpcCode
from services.outcome import Reason

RETRIED_BY_SDKS = {408, 409, 429}


def test_every_reason_has_one_row() -> None:
    assert set(STATUS) == set(Reason)


def test_codes_tell_the_reasons_apart() -> None:
    assert len(REASON_BY_CODE) == len(STATUS)


def test_a_wrong_request_is_never_our_fault() -> None:
    ours = {Reason.INTERNAL, Reason.ENGINE_LOST, Reason.DRAINING, Reason.NOT_READY, Reason.SHED}
    ours |= {Reason.AUDIT_UNAVAILABLE, Reason.STORE_UNAVAILABLE}
    ours |= {Reason.DEADLINE_UNREACHABLE, Reason.DEADLINE_EXCEEDED}
    for reason, status in STATUS.items():
        assert (status.http >= 500) == (reason in ours), reason


def test_hopeless_requests_are_not_repeated_by_sdks() -> None:
    hopeless = (
        Reason.INVALID_JSON, Reason.INVALID_FIELD, Reason.UNSUPPORTED_FIELD, Reason.BODY_TOO_LARGE,
        Reason.CONTEXT_TOO_LONG, Reason.MODEL_NOT_FOUND, Reason.CONTENT_BLOCKED, Reason.POISON_REQUEST,
        Reason.IDEMPOTENCY_CONFLICT, Reason.UNAUTHENTICATED, Reason.FORBIDDEN,
    )  # fmt: skip
    for reason in hopeless:
        assert STATUS[reason].http not in RETRIED_BY_SDKS
        assert STATUS[reason].grpc not in (GrpcCode.UNAVAILABLE, GrpcCode.ABORTED)
