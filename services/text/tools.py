"""Tool calls in a stream of text: a block of any known format (tool_formats.py) becomes ToolCallDeltas.

Rules: pure; one transform per choice; knows no tokens and no wire. A block is emitted when it is complete: text that
turns out to be no call must come out as text (a call that is forced cannot: forced_calls.py). Blocks are bounded by
`max_tokens`. The result does not depend on how the text is cut.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ..answer import ToolCallDelta
from .tool_formats import FORMATS, Format

NewId = Callable[[int], str]
"""Makes the id of the call with this index; unique over the mesh, e.g. from the request id and the choice."""

Visible = tuple[str, tuple[ToolCallDelta, ...]]
"""Text to show, and tool calls to announce."""


class ToolTransform(Protocol):
    """What the stream runs each piece of text through when the request has tools."""

    num_calls: int

    def push(self, text: str) -> Visible:
        """What became certain with this piece. Never raises."""
        ...

    def flush(self) -> Visible:
        """What an ended stream still owes."""
        ...


class ToolCallStream:
    """ToolTransform for `tool_choice: auto`: text outside of blocks is shown, blocks become calls.

    A block that does not parse is shown as it was written, tags included; one that the answer's end cut off
    is taken for complete if it parses (models do end without the closing tag). White space behind a call is
    dropped. Only marks of `formats` are listened for."""

    __slots__ = ("_buffer", "_format", "_formats", "_inside", "_new_id", "_scanned", "_starts", "_trim",
                 "num_calls")  # fmt: skip

    def __init__(self, new_id: NewId, formats: tuple[Format, ...] = FORMATS) -> None:
        self.num_calls = 0
        self._new_id = new_id
        self._formats, self._format = formats, formats[0]  # the latter is of the block that we are in
        self._starts = {each.open[0] for each in formats}
        self._buffer = ""
        self._inside = False
        self._scanned = 0  # no closing tag begins before this
        self._trim = False

    def push(self, text: str) -> Visible:
        if not self._buffer and not self._inside and not self._trim:
            for start in self._starts:
                if start in text:
                    break
            else:
                return text, ()
        self._buffer += text
        shown: list[str] = []
        calls: list[ToolCallDelta] = []
        while self._leave(shown, calls) if self._inside else self._enter(shown):
            pass
        return "".join(shown), tuple(calls)

    def flush(self) -> Visible:
        rest, self._buffer = self._buffer, ""
        if not self._inside:
            return self._trimmed(rest), ()
        shown: list[str] = []
        calls: list[ToolCallDelta] = []
        self._end_block(rest, "", shown, calls)
        return "".join(shown), tuple(calls)

    def _enter(self, shown: list[str]) -> bool:
        found = [(at, each) for each in self._formats if (at := self._buffer.find(each.open)) >= 0]
        if not found:
            keep = max(_partial(self._buffer, each.open) for each in self._formats)
            shown.append(self._trimmed(self._buffer[: len(self._buffer) - keep]))
            self._buffer = self._buffer[len(self._buffer) - keep :]
            return False
        at, self._format = min(found, key=_first)
        shown.append(self._trimmed(self._buffer[:at]))
        self._buffer, self._inside, self._scanned = self._buffer[at + len(self._format.open) :], True, 0
        return True

    def _leave(self, shown: list[str], calls: list[ToolCallDelta]) -> bool:
        close = self._format.close
        at = self._buffer.find(close, self._scanned) if close else -1
        if at < 0:
            self._scanned = max(0, len(self._buffer) - len(close) + 1)
            return False
        block, self._buffer = self._buffer[:at], self._buffer[at + len(close) :]
        self._end_block(block, close, shown, calls)
        return True

    def _end_block(self, block: str, close: str, shown: list[str], calls: list[ToolCallDelta]) -> None:
        self._inside = False
        parsed = self._format.parse(block)
        if not parsed:
            shown.append(self._trimmed(self._format.open + block + close))
            return
        self._trim = True
        for name, arguments in parsed:
            calls.append(ToolCallDelta(self.num_calls, arguments, name, self._new_id(self.num_calls)))
            self.num_calls += 1

    def _trimmed(self, text: str) -> str:
        if self._trim:
            text = text.lstrip()
            self._trim = not text
        return text


def _first(found: tuple[int, Format]) -> int:
    return found[0]


def _partial(text: str, tag: str) -> int:
    """Length of the longest tail of `text` that begins `tag` without being all of it."""
    for size in range(min(len(tag) - 1, len(text)), 0, -1):
        if tag.startswith(text[-size:]):
            return size
    return 0
