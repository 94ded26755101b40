"""How models write tool calls, each between marks of its own. A block in, (name, arguments) out.

Rules: pure; knows no stream. All formats are always listened for: the marks do not occur in other text, what is between
them must be a call to the last character or it is shown as it was written, and a model that is told one format in
words (templates without tools) may fall back into the one that it was trained on.

- `hermes`: `<tool_call>{"name": …, "arguments": …}</tool_call>`, one call or a list (NousResearch; Qwen, SmolLM2).
- `deepseek`: `<｜tool▁calls▁begin｜>`, calls, `<｜tool▁calls▁end｜>`. A call of V3 and R1 is
  `<｜tool▁call▁begin｜>function<｜tool▁sep｜>NAME`, the arguments in a fence of ```json and ```, and
  `<｜tool▁call▁end｜>`; of V3.1 `<｜tool▁call▁begin｜>NAME<｜tool▁sep｜>{…}<｜tool▁call▁end｜>` (the models' chat
  templates; vLLM's `deepseek_v3` and `deepseek_v31` parsers).
- `mistral`: `[TOOL_CALLS]`, then to the answer's end a JSON list of calls (v0.3), or `NAME{…}` and `NAME[ARGS]{…}`,
  each behind a mark of its own (v11 and v13; vLLM's `mistral` parser).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

import msgspec

Call = tuple[str, str]
"""(name, arguments as JSON text)."""

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,256}")
_DEEPSEEK_CALL = re.compile(
    r"\s*<｜tool▁call▁begin｜>(.*?)<｜tool▁sep｜>(.*?)<｜tool▁call▁end｜>\s*", re.DOTALL
)
_MISTRAL_CALL = re.compile(
    r"\s*([A-Za-z0-9_.-]{1,256})(?:\[CALL_ID\]\w*)?(?:\[ARGS\])?\s*(\{.*\})\s*", re.DOTALL
)


class _Json(msgspec.Struct, frozen=True):
    name: str
    arguments: msgspec.Raw = msgspec.Raw(b"{}")
    parameters: msgspec.Raw = msgspec.Raw()


_CALLS = msgspec.json.Decoder(list[_Json])
_STRING = msgspec.json.Decoder(str)
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])


def parse_calls(block: str) -> list[Call]:
    """The calls in `block`, one JSON object or a list; empty when it is neither.

    Arguments keep the model's own text, byte by byte; a string of JSON is unwrapped."""
    text = block.strip()
    try:
        calls = _CALLS.decode(text if text.startswith("[") else f"[{text}]")
        return [(call.name, _arguments(call)) for call in calls]
    except msgspec.MsgspecError:
        return []


def _arguments(call: _Json) -> str:
    raw = bytes(call.parameters) or bytes(call.arguments)
    return _STRING.decode(raw) if raw[:1] == b'"' else raw.decode()


def parse_deepseek(block: str) -> list[Call]:
    """The calls between DeepSeek's marks; empty when anything else is there."""
    calls, at = list[Call](), 0
    while at < len(block) and (found := _DEEPSEEK_CALL.match(block, at)) is not None:
        calls.append(_fenced(found[2]) or (found[1].strip(), found[2].strip()))
        at = found.end()
    return calls if at == len(block) and all(map(_is_call, calls)) else []


def _fenced(text: str) -> Call | None:
    """V3's and R1's: a name, and the arguments in a fence."""
    name, fence, rest = text.strip().partition("```")
    if not fence or not rest.endswith("```"):
        return None
    return name.strip(), rest[:-3].removeprefix("json").strip()


def parse_mistral(block: str) -> list[Call]:
    """The calls behind Mistral's mark; empty when anything else is there."""
    if block.lstrip().startswith("["):
        return parse_calls(block)
    found = [_MISTRAL_CALL.fullmatch(part) for part in block.split(MISTRAL.open)]
    calls = [(one[1], one[2]) for one in found if one is not None]
    return calls if len(calls) == len(found) and all(map(_is_call, calls)) else []


def _is_call(call: Call) -> bool:
    name, arguments = call
    try:
        _OBJECT.decode(arguments)
    except msgspec.MsgspecError:
        return False
    return _NAME.fullmatch(name) is not None


class Format(NamedTuple):
    """`close` is empty where calls run to the answer's end."""

    open: str
    close: str
    parse: Callable[[str], list[Call]]


HERMES = Format("<tool_call>", "</tool_call>", parse_calls)
DEEPSEEK = Format("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", parse_deepseek)
MISTRAL = Format("[TOOL_CALLS]", "", parse_mistral)
FORMATS = (HERMES, DEEPSEEK, MISTRAL)
MARKS = frozenset(
    (
        *(
            "<｜tool▁calls▁begin｜>",
            "<｜tool▁calls▁end｜>",
            "<｜tool▁call▁begin｜>",
            "<｜tool▁call▁end｜>",
            "<｜tool▁sep｜>",
        ),
        *("<tool_call>", "</tool_call>", "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"),
    )
)
"""Tokens that must have a text, also where a vocabulary calls them special."""
