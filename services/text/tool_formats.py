"""How models write tool calls, most between marks of their own. A block in, (name, arguments) out, and back.

Rules: pure; knows no stream. All formats with marks are listened for unless one is set (`EXPERTMESH_TOOL_FORMAT`): the
marks do not occur in other text, what is between them must be a call to the last character or it is shown as it was
written, and a model that is told one format in words (templates without tools) may fall back into the one that it was
trained on.

- `hermes`: `<tool_call>{"name": …, "arguments": …}</tool_call>`, one call or a list (NousResearch; Qwen, SmolLM2).
- `deepseek`: `<｜tool▁calls▁begin｜>`, calls, `<｜tool▁calls▁end｜>`. A call of V3 and R1 is
  `<｜tool▁call▁begin｜>function<｜tool▁sep｜>NAME`, the arguments in a fence of ```json and ```, and
  `<｜tool▁call▁end｜>`; of V3.1 `<｜tool▁call▁begin｜>NAME<｜tool▁sep｜>{…}<｜tool▁call▁end｜>` (the models' chat
  templates; vLLM's `deepseek_v3` and `deepseek_v31` parsers).
- `mistral`: `[TOOL_CALLS]`, then to the answer's end a JSON list of calls (v0.3), or `NAME{…}` and `NAME[ARGS]{…}`,
  each behind a mark of its own (v11 and v13; vLLM's `mistral` parser).
- `llama`: `{"name": …, "parameters": {…}}` and nothing else, several with `;` or lines between them, perhaps behind
  `<|python_tag|>` (Llama 3.1 to 3.3; vLLM's `llama3_json` parser). An answer in JSON looks the same, so that this one
  must be set.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, NoReturn, cast

import msgspec

Call = tuple[str, str]
"""(name, arguments as JSON text)."""

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,256}")
_DEEPSEEK_CALL = re.compile(
    r"\s*<｜tool▁call▁begin｜>(.*?)<｜tool▁sep｜>(.*?)<｜tool▁call▁end｜>\s*", re.DOTALL
)
_MISTRAL_NAME = re.compile(r"\s*([A-Za-z0-9_.-]{1,256})(?:\[CALL_ID\]\w*)?(?:\[ARGS\])?\s*(?=\{)")
PYTHON_TAG = "<|python_tag|>"
_SPACE = re.compile(r"\s*")
_BETWEEN = re.compile(r"\s*;?\s*")


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")


_SCAN = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=_no_number)
"""Finds where a value ends; of numbers only the text is wanted."""


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
    calls, at = list[Call](), 0
    while (found := _MISTRAL_NAME.match(block, at)) is not None:
        end = _value_end(block, found.end())
        calls.append((found[1], block[found.end() : end]))
        at = _SPACE.match(block, end).end()  # type: ignore[union-attr]  # it matches anything
        if at == len(block):
            return calls if end > found.end() and all(map(_is_call, calls)) else []
        if end == found.end() or not block.startswith(MISTRAL.open, at):
            return []
        at += len(MISTRAL.open)
    return []


def parse_bare(text: str) -> list[Call]:
    """The calls that a whole answer is; empty when it is anything else."""
    text = text.strip().removeprefix(PYTHON_TAG).strip()
    if text.startswith("["):
        return _bare(text)
    calls, at = list[Call](), 0
    while at < len(text):
        end = _value_end(text, at)
        one = _bare(f"[{text[at:end]}]") if end > at else []
        if not one:
            return []
        calls += one
        at = _BETWEEN.match(text, end).end()  # type: ignore[union-attr]  # it matches anything
    return calls


def _bare(text: str) -> list[Call]:
    """As parse_calls, of which each must say its arguments: a name alone is no call."""
    calls = parse_calls(text)
    told = cast("list[dict[str, object]]", msgspec.json.decode(text)) if calls else []
    said = all("arguments" in one or "parameters" in one for one in told)
    return calls if said and all(map(_is_call, calls)) else []


def _value_end(text: str, at: int) -> int:
    """Where the JSON value that begins there ends; `at` itself where none does."""
    try:
        return _SCAN.raw_decode(text, at)[1]
    except (ValueError, RecursionError):
        return at


def _is_call(call: Call) -> bool:
    name, arguments = call
    try:
        _OBJECT.decode(arguments)
    except msgspec.MsgspecError:
        return False
    return _NAME.fullmatch(name) is not None


def _write_hermes(calls: Sequence[Call]) -> str:
    return "\n".join(f"{HERMES.open}\n{_told('arguments', call)}\n{HERMES.close}" for call in calls)


def _write_deepseek(calls: Sequence[Call]) -> str:
    told = (f"<｜tool▁call▁begin｜>{name}<｜tool▁sep｜>{text}<｜tool▁call▁end｜>" for name, text in calls)
    return f"{DEEPSEEK.open}{''.join(told)}{DEEPSEEK.close}"


def _write_mistral(calls: Sequence[Call]) -> str:
    return f"{MISTRAL.open} [{', '.join(_told('arguments', call) for call in calls)}]"


def _write_bare(calls: Sequence[Call]) -> str:
    return "\n".join(_told("parameters", call) for call in calls)


def _told(key: str, call: Call) -> str:
    return f'{{"name": {json.dumps(call[0])}, "{key}": {call[1]}}}'


class Format(NamedTuple):
    """`close` is empty where calls run to the answer's end, `open` too where they are all of it. `write` says calls as
    the model does."""

    open: str
    close: str
    parse: Callable[[str], list[Call]]
    write: Callable[[Sequence[Call]], str]


ToolFormat = Literal["auto", "hermes", "deepseek", "mistral", "llama"]
HERMES = Format("<tool_call>", "</tool_call>", parse_calls, _write_hermes)
DEEPSEEK = Format("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", parse_deepseek, _write_deepseek)
MISTRAL = Format("[TOOL_CALLS]", "", parse_mistral, _write_mistral)
LLAMA = Format("", "", parse_bare, _write_bare)
FORMATS = (HERMES, DEEPSEEK, MISTRAL)
"""Those with marks."""
BY_NAME: dict[ToolFormat, Format] = {
    "hermes": HERMES,
    "deepseek": DEEPSEEK,
    "mistral": MISTRAL,
    "llama": LLAMA,
}
MARKS = frozenset(
    (
        *(
            "<｜tool▁calls▁begin｜>",
            "<｜tool▁calls▁end｜>",
            "<｜tool▁call▁begin｜>",
            "<｜tool▁call▁end｜>",
            "<｜tool▁sep｜>",
        ),
        *("<tool_call>", "</tool_call>", "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", PYTHON_TAG),
    )
)
"""Tokens that must have a text where tools are in play, also where a vocabulary calls them special."""
