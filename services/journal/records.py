"""What the journal's store keeps of an answer, and an answer of what it keeps. Pure: values and bytes.

Rules: an answer's first record and every take-over carry its identity; parts and the end follow. The encoding is
msgpack with a tag, so that a newer journal may add kinds; records of an unknown kind end the reading.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import msgspec

from ..link.journal_messages import LanePart
from .effects import Keep
from .entry import Entry
from .lane import Gap, Lane, size_bytes

M = TypeVar("M")


class Owned(msgspec.Struct, array_like=True, frozen=True, tag=1):
    """A gateway owns the answer from here on."""

    epoch: int
    fingerprint: bytes
    head: bytes


class Grown(msgspec.Struct, array_like=True, frozen=True, tag=2):
    """Tokens."""

    parts: tuple[LanePart, ...]


class Ended(msgspec.Struct, array_like=True, frozen=True, tag=3):
    """The answer is complete."""

    tail: bytes


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Owned | Grown | Ended)


def encode(keep: Keep, fingerprint: bytes, head: bytes) -> bytes:
    """The record of what is to be kept; empty for a drop."""
    match keep.what:
        case "own":
            return _ENCODER.encode(Owned(keep.epoch, fingerprint, head))
        case "parts":
            return _ENCODER.encode(Grown(keep.parts))
        case "end":
            return _ENCODER.encode(Ended(keep.tail))
        case _:
            return b""


def rebuild(
    key: bytes, records: Iterable[bytes], scopes: tuple[bytes, ...], now_s: float
) -> Entry[tuple[object, int]] | None:
    """The answer that the records tell of; None when they tell of none, or are not ours to read."""
    entry: Entry[tuple[object, int]] | None = None
    try:
        for record in records:
            match _DECODER.decode(record):
                case Owned(epoch=epoch, fingerprint=fingerprint, head=head):
                    if entry is None:
                        entry = Entry(key, fingerprint, head, scopes, now_s)
                    entry.epoch = epoch
                case Grown(parts=parts) if entry is not None:
                    for part in parts:
                        fresh = entry.lanes.setdefault(part.choice, Lane()).accept(part)
                        entry.num_bytes += size_bytes(fresh) if fresh is not None else 0
                case Ended(tail=tail) if entry is not None:
                    entry.tail = tail
                    entry.num_bytes += len(tail)
                case _:
                    return None
    except (msgspec.MsgspecError, Gap):
        return None
    return entry
