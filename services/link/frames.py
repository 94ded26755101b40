"""Frames: a length, then a msgpack array of messages. Pure: bytes in, messages out.

Rules: knows messages and bytes; no socket, no clock, no event loop. A frame over `MAX_FRAME_BYTES`, or one that
does not decode, is an error that ends the link: the peer is broken or no peer of ours.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import msgspec

from ..errors import LinkClosed
from .messages import AnyMessage

MAX_FRAME_BYTES = 64 * 1024 * 1024
_LENGTH = struct.Struct("<I")
_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(list[AnyMessage])


def encode_frame(messages: Sequence[object]) -> bytes:
    """One frame with all `messages`, in order."""
    payload = _ENCODER.encode(messages)
    return _LENGTH.pack(len(payload)) + payload


def decode_payload(payload: bytes | bytearray | memoryview) -> list[AnyMessage]:
    """Messages of one frame's payload. Raises LinkClosed on garbage."""
    try:
        return _DECODER.decode(payload)
    except msgspec.MsgspecError as error:
        raise LinkClosed(f"undecodable frame: {error}") from error


class FrameReader:
    """Cuts a byte stream into frame payloads. Holds at most one incomplete frame."""

    def __init__(self, max_frame_bytes: int = MAX_FRAME_BYTES) -> None:
        self._buffer = bytearray()
        self._max_frame_bytes = max_frame_bytes

    def messages(self, data: bytes) -> list[AnyMessage]:
        """The messages of all frames that are complete with `data`. Raises LinkClosed on garbage."""
        if not self._buffer and len(data) >= 4:
            length = _LENGTH.unpack_from(data)[0]
            if len(data) == length + 4 and length <= self._max_frame_bytes:
                return decode_payload(data[4:])  # the common case: one read, one frame, one copy
        return [message for payload in self.feed(data) for message in decode_payload(payload)]

    def feed(self, data: bytes) -> list[bytes]:
        """Complete payloads in `data` and what was held back. Raises LinkClosed on an oversize frame."""
        self._buffer += data
        payloads: list[bytes] = []
        start = 0
        while len(self._buffer) - start >= 4:
            length = _LENGTH.unpack_from(self._buffer, start)[0]
            if length > self._max_frame_bytes:
                raise LinkClosed(f"frame of {length} bytes, the limit is {self._max_frame_bytes}")
            if len(self._buffer) - start - 4 < length:
                break
            payloads.append(bytes(self._buffer[start + 4 : start + 4 + length]))
            start += 4 + length
        if start:
            del self._buffer[:start]
        return payloads
