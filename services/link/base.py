"""What all messages of a link have in common. Apart from messages.py, so that a room's words may have a file of their
own (journal_messages.py)."""

from __future__ import annotations

import msgspec


class Message(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """Base of all messages: arrays on the wire, an integer tag first."""
