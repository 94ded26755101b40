"""A call that `tool_choice` forces, told in pieces as it is written; and a call that is the whole answer.

Rules: pure; one transform per choice (tools.py `ToolTransform`); knows no tokens and no wire. A grammar binds a forced
answer from its first token on, so that its beginning is certain to be a call's, and its arguments are passed on as
they come. The result does not depend on how the text is cut.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from ..answer import ToolCallDelta
from .tool_formats import PYTHON_TAG, parse_bare, parse_calls
from .tools import NewId, Visible

_HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*"([A-Za-z0-9_.-]{1,256})"\s*,\s*"arguments"\s*:\s*(?=\{)')
MAX_HEAD_CHARS = 2048
"""What stands before the arguments is no longer, white space included; else the answer is read at its end."""
_OUTSIDE, _INSIDE = re.compile(r'["{}\[\]]'), re.compile(r'["\\]')


class NamedCallStream:
    """ToolTransform when `tool_choice` names a function: the whole answer is its arguments."""

    __slots__ = ("_id", "_name", "num_calls")

    def __init__(self, new_id: NewId, name: str) -> None:
        self.num_calls = 1
        self._id, self._name = new_id(0), name

    def push(self, text: str) -> Visible:
        if not text:
            return "", ()
        delta = ToolCallDelta(0, text, self._name, self._id)
        self._name = self._id = ""
        return "", (delta,)

    def flush(self) -> Visible:
        return "", () if not self._id else (ToolCallDelta(0, "", self._name, self._id),)


class RequiredCallStream:
    """ToolTransform when `tool_choice` is "required": the whole answer is `{"name": …, "arguments": {…}}`. The call is
    announced with its name; one that `max_tokens` cuts off has half its arguments, as OpenAI's has. An answer that
    does not begin so is a call or a list of them at its end, or text."""

    __slots__ = ("_end", "_held", "_new_id", "_whole", "num_calls")

    def __init__(self, new_id: NewId) -> None:
        self.num_calls = 0
        self._new_id = new_id
        self._held: list[str] = []
        self._whole = False  # it does not begin as a call
        self._end = ValueEnd()

    def push(self, text: str) -> Visible:
        if self.num_calls:
            arguments = self._end.take(text)
            return "", (ToolCallDelta(0, arguments),) if arguments else ()
        self._held.append(text)
        if self._whole:
            return "", ()
        held = "".join(self._held)
        self._held = [held]
        found = _HEAD.match(held, 0, MAX_HEAD_CHARS)
        if found is None:
            self._whole = len(held) >= MAX_HEAD_CHARS
            return "", ()
        self.num_calls = 1
        arguments = self._end.take(held[found.end() :])
        return "", (ToolCallDelta(0, arguments, found[1], self._new_id(0)),)

    def flush(self) -> Visible:
        if self.num_calls:
            return "", ()
        text = "".join(self._held)
        parsed = parse_calls(text)
        if not parsed:  # cut off by max_tokens: the client sees what there is
            return text, ()
        self.num_calls = len(parsed)
        return "", tuple(
            ToolCallDelta(i, args, name, self._new_id(i)) for i, (name, args) in enumerate(parsed)
        )


class BareCallStream:
    """ToolTransform for models that write a call without a mark of their own (the format `llama`): an answer that
    begins as one is held to its end, and is a call if all of it is calls of `names`. Any other passes through."""

    __slots__ = ("_held", "_names", "_new_id", "_passes", "num_calls")

    def __init__(self, new_id: NewId, names: Collection[str]) -> None:
        self.num_calls = 0
        self._new_id, self._names = new_id, frozenset(names)
        self._held: list[str] = []
        self._passes: bool | None = None  # not known while there is but white space

    def push(self, text: str) -> Visible:
        if self._passes:
            return text, ()
        self._held.append(text)
        if self._passes is None and (start := "".join(self._held).lstrip()):
            if PYTHON_TAG.startswith(start):
                return "", ()
            self._passes = start[0] not in "{[" and not start.startswith(PYTHON_TAG)
            if self._passes:
                return self._release(), ()
        return "", ()

    def flush(self) -> Visible:
        if self._passes:
            return "", ()
        text = self._release()
        parsed = parse_bare(text)
        if not parsed or not all(name in self._names for name, _ in parsed):
            return text, ()
        self.num_calls = len(parsed)
        return "", tuple(
            ToolCallDelta(i, args, name, self._new_id(i)) for i, (name, args) in enumerate(parsed)
        )

    def _release(self) -> str:
        text = "".join(self._held)
        self._held.clear()
        return text


class ValueEnd:
    """Where a JSON object or list ends, over pieces of text."""

    __slots__ = ("_depth", "_escaped", "_in_string", "done")

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = self._escaped = False
        self.done = False

    def take(self, text: str) -> str:
        """The part of `text` that belongs to the value. The first piece begins with its bracket."""
        at = 0
        while not self.done and at < len(text):
            if self._escaped:
                self._escaped, at = False, at + 1
                continue
            found = (_INSIDE if self._in_string else _OUTSIDE).search(text, at)
            if found is None:
                return text
            at = found.end()
            self._step(found[0])
        return text[:at]

    def _step(self, sign: str) -> None:
        if sign == "\\":
            self._escaped = True
        elif sign == '"':
            self._in_string = not self._in_string
        else:
            self._depth += 1 if sign in "{[" else -1
            self.done = self._depth == 0
