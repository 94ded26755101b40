"""What a chat message says as plain text, whichever of OpenAI's two forms its content has.

Rules: pure; the wire layer has checked types and refused parts that are not text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast


def message_text(message: Mapping[str, object]) -> str:
    """`content` as one string: a string as it is, text parts joined by newlines, nothing as ""."""
    return content_text(message.get("content"))


def content_text(content: object) -> str:
    """The text of a `content` value."""
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        return ""
    parts = cast("Sequence[object]", content)
    texts = (_part_text(cast("Mapping[str, object]", part)) for part in parts if isinstance(part, Mapping))
    return "\n".join(text for text in texts if text)


def _part_text(part: Mapping[str, object]) -> str:
    text = part.get("text")
    return text if isinstance(text, str) else ""
