"""One turn as it is kept. Pure: bytes in, a Turn out, or None for what this version cannot read.

Rules: a turn holds only what is its own (the new input, the answer) and the names of those before it, so that deleting
one deletes its words everywhere. Knows no store and no tenant; what is read was sealed, so it is ours, but another
version may have written it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

VERSION = 1
IN_PROGRESS = "in_progress"


class Earlier(msgspec.Struct, frozen=True, array_like=True):
    """An earlier turn: the id of its response, and how many bytes it has here."""

    response_id: str
    num_bytes: int


class Turn(msgspec.Struct, frozen=True, omit_defaults=True):
    """`response` is the object that the client got; `items` are the input's own; `before` is oldest first."""

    version: int
    response: dict[str, Any]
    items: list[dict[str, Any]]
    before: tuple[Earlier, ...] = ()

    @property
    def status(self) -> str:
        return str(self.response.get("status"))

    @property
    def said(self) -> list[dict[str, Any]]:
        """The turn as items of a conversation."""
        return [*self.items, *self.response.get("output", ())]


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Turn)


def encode(
    response: Mapping[str, object], items: Sequence[Mapping[str, Any]], before: Sequence[Earlier]
) -> bytes:
    """A turn as bytes."""
    return _ENCODER.encode(Turn(VERSION, dict(response), [dict(item) for item in items], tuple(before)))


def decode(record: bytes) -> Turn | None:
    """None: not written by a version that this one understands."""
    try:
        turn = _DECODER.decode(record)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if turn.version != VERSION or not isinstance(turn.response.get("output", []), list):
        return None
    return turn


def as_items(told: str | Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A request's `input` as items: a text is one message of the user."""
    if isinstance(told, str):
        return [
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": told}]},
        ]
    return [{"type": "message", **item} for item in told]
