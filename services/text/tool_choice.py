"""From `tools` and `tool_choice` to what a request needs: a grammar, a transform, and words for the prompt.

Rules: pure; the wire layer has checked that every tool is a function with a name and that a named choice
exists. A forced choice is a matter of guided decoding, so that it holds for any model, however small; a free
choice is up to the model, which must know the format: templates that render tools say it, for others
`explain_tools` does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import cast

import msgspec

from ..request import GuidedDecoding
from .content import message_text
from .forced_calls import BareCallStream, NamedCallStream, RequiredCallStream
from .tokenizer import Message, Tool
from .tool_formats import BY_NAME, FORMATS, HERMES, LLAMA, Call, Format, ToolFormat
from .tools import NewId, ToolCallStream, ToolTransform

Schema = dict[str, object]
ToolChoice = str | Mapping[str, object]

_INSTRUCTIONS = (
    "You may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n"
    "<tools>\n{tools}\n</tools>\n\n"
)  # the wording of the Hermes function-calling format (NousResearch/Hermes-Function-Calling), as Qwen uses it
_HERMES_FORM = (
    "For each function call, return a json object with function name and arguments within "
    "<tool_call></tool_call> XML tags:\n"
)
_OTHER_FORM = "To call functions, say nothing but this, with their names and their arguments as json:\n"
_EXAMPLE: Call = ("<function-name>", "<args-json-object>")


def forced_function(tool_choice: ToolChoice) -> str:
    """The function that `tool_choice` names; empty when it names none."""
    if isinstance(tool_choice, str):
        return ""
    function = cast("Mapping[str, object]", tool_choice.get("function") or {})
    return str(function.get("name", ""))


def is_forced(tool_choice: ToolChoice) -> bool:
    """The answer is nothing but a call."""
    return tool_choice == "required" or forced_function(tool_choice) != ""


def forced_grammar(tools: Sequence[Tool], tool_choice: ToolChoice) -> GuidedDecoding | None:
    """What the answer must look like for "required" or a named function; None when the choice is free.

    Named: the function's own parameter schema. Required: `{"name", "arguments"}` of any one of the tools,
    with their `$defs` moved to the root under names of their own. Raises KeyError when the named function is
    no tool."""
    if name := forced_function(tool_choice):
        return _grammar(dict(map(_signature, tools))[name])
    if tool_choice != "required" or not tools:
        return None
    definitions: Schema = {}
    calls = [
        _call_schema(i, name, schema, definitions) for i, (name, schema) in enumerate(map(_signature, tools))
    ]
    schema: Schema = calls[0] if len(calls) == 1 else {"anyOf": calls}
    return _grammar({**schema, "$defs": definitions} if definitions else schema)


def tool_transform(
    tools: Sequence[Tool], tool_choice: ToolChoice, new_id: NewId, told: ToolFormat = "auto"
) -> ToolTransform | None:
    """The transform for one choice's text; None when the request has no tools or wants none. `told` is the format that
    was set; a forced choice has one of its own."""
    if name := forced_function(tool_choice):
        return NamedCallStream(new_id, name)
    if not tools or tool_choice == "none":
        return None
    if tool_choice == "required":
        return RequiredCallStream(new_id)
    if told == "auto":
        return ToolCallStream(new_id, FORMATS)
    if (form := BY_NAME[told]) is LLAMA:
        return BareCallStream(new_id, [name for name, _ in map(_signature, tools)])
    return ToolCallStream(new_id, (form,))


def explain_tools(
    messages: Sequence[Message], tools: Sequence[Tool], told_format: ToolFormat = "auto"
) -> list[Schema]:
    """A conversation for templates that know no tools: signatures in the system message, calls as blocks in
    the assistant's text, results as the user's. Without tools in play the messages come back with plain
    text. `auto` is Hermes' format."""
    form = BY_NAME.get(told_format, HERMES)
    told = [_plain(message, form) for message in messages]
    if tools:
        signatures = "\n".join(msgspec.json.encode(tool).decode() for tool in tools)
        how = _HERMES_FORM if form is HERMES else _OTHER_FORM
        words = _INSTRUCTIONS.format(tools=signatures) + how + _example(form)
        if told and told[0]["role"] == "system":
            told[0] = {**told[0], "content": f"{told[0]['content']}\n\n{words}"}
        else:
            told.insert(0, {"role": "system", "content": words})
    return told


class Arguments(dict[str, object]):
    """A call's arguments for a chat template. Most print them with `tojson`, as an object; DeepSeek's add them to a
    string, as the wire has them. Both get what they expect."""

    def __init__(self, told: Mapping[str, object], text: str) -> None:
        super().__init__(told)
        self._text = text

    def __str__(self) -> str:
        return self._text

    def __add__(self, right: object) -> str:
        return self._text + str(right)

    def __radd__(self, left: object) -> str:
        return str(left) + self._text


def parsed_arguments(message: Message) -> Schema:
    """The message with each tool call's arguments as `Arguments`. Those that are no JSON stay as they are."""
    calls = message.get("tool_calls")
    if not calls:
        return dict(message)
    return {**message, "tool_calls": [_parsed_call(call) for call in cast("Sequence[Schema]", calls)]}


def _parsed_call(call: Schema) -> Schema:
    function = dict(cast("Schema", call.get("function") or {}))
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        with suppress(msgspec.DecodeError):
            told: object = msgspec.json.decode(arguments or "{}")
            if isinstance(told, dict):
                told = Arguments(cast("Schema", told), arguments or "{}")
            function["arguments"] = told
    return {**call, "function": function}


def _example(form: Format) -> str:
    return form.write([_EXAMPLE]).replace('"<function-name>"', _EXAMPLE[0])


def _plain(message: Message, form: Format) -> Schema:
    role, text = str(message.get("role", "")), message_text(message)
    if role == "tool":
        return {"role": "user", "content": f"<tool_response>\n{text}\n</tool_response>"}
    calls = [_told_call(call) for call in cast("Sequence[Schema]", message.get("tool_calls") or ())]
    role = "system" if role == "developer" else role
    return {"role": role, "content": "\n".join(filter(None, [text, form.write(calls) if calls else ""]))}


def _told_call(call: Schema) -> Call:
    """Arguments that are no JSON object are said as they were given."""
    function = cast("Schema", _parsed_call(call)["function"])
    return str(function.get("name")), msgspec.json.encode(function.get("arguments")).decode()


def _signature(tool: Tool) -> tuple[str, Schema]:
    function = cast("Schema", tool["function"])
    return str(function["name"]), cast("Schema", function.get("parameters") or {"type": "object"})


def _call_schema(index: int, name: str, parameters: Schema, definitions: Schema) -> Schema:
    arguments = dict(parameters)
    for keyword in ("$defs", "definitions"):
        for key, value in cast("Schema", arguments.pop(keyword, {})).items():
            definitions[f"t{index}_{key}"] = _renamed(value, index)
    return {
        "type": "object",
        "properties": {"name": {"const": name}, "arguments": _renamed(arguments, index)},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def _renamed(schema: object, index: int) -> object:
    """`schema` with references into its own definitions pointing to the shared ones."""
    if isinstance(schema, list):
        return [_renamed(item, index) for item in cast("list[object]", schema)]
    if not isinstance(schema, dict):
        return schema
    return {key: _renamed_ref(key, value, index) for key, value in cast("Schema", schema).items()}


def _renamed_ref(key: str, value: object, index: int) -> object:
    if key == "$ref" and isinstance(value, str):
        for prefix in ("#/$defs/", "#/definitions/"):
            if value.startswith(prefix):
                return f"#/$defs/t{index}_{value[len(prefix) :]}"
        return value
    return _renamed(value, index)


def _grammar(schema: Schema) -> GuidedDecoding:
    return GuidedDecoding("json_schema", msgspec.json.encode(schema).decode())
