"""What gateways tell each other of an answer through the journal, which keeps it as bytes."""

from __future__ import annotations

import msgspec

from ..answer import AnswerTail
from ..cache.value import CachedAnswer
from ..errors import RequestError, ServiceError
from ..outcome import Reason
from ..request import Usage


class JournalHead(msgspec.Struct, frozen=True, array_like=True):
    """What whoever continues an answer must say as the one that began it did."""

    request_id: str
    created: int
    model: str
    revision: str
    policy: str
    adapter: str = ""


class JournalTail(msgspec.Struct, frozen=True, array_like=True):
    """How an answer ended. `answer` when it came whole, from the response cache, and not as tokens."""

    usage: Usage
    confidence: tuple[float, ...] | None = None
    answer: CachedAnswer | None = None

    def shown(self) -> AnswerTail:
        """As clients get it."""
        return AnswerTail(self.usage, self.confidence)


_HEADS = msgspec.msgpack.Decoder(JournalHead)
_TAILS = msgspec.msgpack.Decoder(JournalTail)
encode = msgspec.msgpack.Encoder().encode


def decode_head(data: bytes) -> JournalHead:
    """Raises RequestError (RESUME_EXPIRED) for a head of another version."""
    try:
        return _HEADS.decode(data)
    except msgspec.MsgspecError as error:
        raise expired(f"it was begun by another version: {error}") from None


def decode_tail(data: bytes) -> JournalTail:
    """Raises RequestError (RESUME_EXPIRED) for a tail of another version."""
    try:
        return _TAILS.decode(data)
    except msgspec.MsgspecError as error:
        raise expired(f"it was ended by another version: {error}") from None


def expired(why: str) -> RequestError:
    """The answer cannot be given as it was."""
    return RequestError(
        Reason.RESUME_EXPIRED, f"this answer cannot be continued: {why}", param="last-event-id"
    )


def handed_over() -> ServiceError:
    """This gateway does not go on with the answer, another one will."""
    message = "this gateway does not go on with the answer: come back with the last event id, to any gateway"
    return ServiceError(Reason.DRAINING, message, retry_after_s=0.0)
