"""Tool calls: from blocks of text to calls, and from tools to grammars and prompts."""

from __future__ import annotations

import json

import pytest

from services.answer import ToolCallDelta
from services.text.forced_calls import BareCallStream, NamedCallStream, RequiredCallStream
from services.text.tool_choice import explain_tools, forced_grammar, parsed_arguments, tool_transform
from services.text.tools import ToolCallStream

TOOLS = (
    {"type": "function", "function": {"name": "weather", "parameters": {
        "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}},
    {"type": "function", "function": {"name": "add", "parameters": {
        "type": "object",
        "properties": {"n": {"$ref": "#/$defs/number"}},
        "$defs": {"number": {"type": "number"}, "list": {"items": {"$ref": "#/$defs/number"}}},
    }}},
    {"type": "function", "function": {"name": "now"}},
)  # fmt: skip
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>'


def new_id(index: int) -> str:
    return f"call_{index}"


def test_a_block_becomes_a_call_and_text_around_it_stays() -> None:
    stream = ToolCallStream(new_id)
    assert stream.push("Let me see. ") == ("Let me see. ", ())
    assert stream.push(CALL[:20]) == ("", ())
    assert stream.push(CALL[20:]) == ("", (ToolCallDelta(0, '{"city": "Paris"}', "weather", "call_0"),))
    assert stream.push("\n\nDone") == ("Done", ())
    assert stream.num_calls == 1


def test_a_list_and_a_second_block_are_numbered_on() -> None:
    stream = ToolCallStream(new_id)
    text, calls = stream.push(
        '<tool_call>[{"name":"a"},{"name":"b","parameters":{"x":1}}]</tool_call>\n' + CALL
    )
    assert text == ""
    assert [(call.index, call.name, call.arguments) for call in calls] == [
        (0, "a", "{}"), (1, "b", '{"x":1}'), (2, "weather", '{"city": "Paris"}'),
    ]  # fmt: skip


def test_arguments_as_a_string_of_json_are_unwrapped() -> None:
    _, calls = ToolCallStream(new_id).push('<tool_call>{"name":"a","arguments":"{\\"x\\": 1}"}</tool_call>')
    assert calls[0].arguments == '{"x": 1}'


@pytest.mark.parametrize("block", ["no json", '{"arguments": {}}', '{"name": 3}', "[]", ""])
def test_what_is_no_call_is_shown_as_written(block: str) -> None:
    stream = ToolCallStream(new_id)
    assert stream.push(f"a <tool_call>{block}</tool_call> b") == (f"a <tool_call>{block}</tool_call> b", ())


def test_a_block_cut_off_by_the_end_counts_if_it_parses() -> None:
    whole, half = ToolCallStream(new_id), ToolCallStream(new_id)
    whole.push(CALL.removesuffix("</tool_call>"))
    assert whole.flush()[1][0].name == "weather"
    half.push(CALL[:30])
    assert half.flush() == (CALL[:30], ())


def test_which_transform_a_choice_needs() -> None:
    named = {"type": "function", "function": {"name": "now"}}
    assert tool_transform((), "auto", new_id) is None
    assert tool_transform(TOOLS, "none", new_id) is None
    assert isinstance(tool_transform(TOOLS, "auto", new_id), ToolCallStream)
    assert isinstance(tool_transform(TOOLS, "auto", new_id, "deepseek"), ToolCallStream)
    assert isinstance(tool_transform(TOOLS, "auto", new_id, "llama"), BareCallStream)
    assert isinstance(tool_transform(TOOLS, "required", new_id, "llama"), RequiredCallStream)
    assert isinstance(tool_transform(TOOLS, "required", new_id), RequiredCallStream)
    assert isinstance(tool_transform(TOOLS, named, new_id), NamedCallStream)


def test_a_free_choice_needs_no_grammar() -> None:
    assert forced_grammar(TOOLS, "auto") is None
    assert forced_grammar(TOOLS, "none") is None
    assert forced_grammar((), "required") is None


def test_a_named_choice_is_guided_by_the_functions_own_schema() -> None:
    guided = forced_grammar(TOOLS, {"type": "function", "function": {"name": "weather"}})
    assert guided is not None and guided.kind == "json_schema"
    assert json.loads(guided.spec) == TOOLS[0]["function"]["parameters"]  # type: ignore[index]  # literal above
    empty = forced_grammar(TOOLS, {"type": "function", "function": {"name": "now"}})
    assert empty is not None and json.loads(empty.spec) == {"type": "object"}
    with pytest.raises(KeyError):
        forced_grammar(TOOLS, {"type": "function", "function": {"name": "other"}})


def test_a_required_choice_is_any_of_the_tools_with_definitions_at_the_root() -> None:
    guided = forced_grammar(TOOLS, "required")
    assert guided is not None
    schema = json.loads(guided.spec)
    assert [one["properties"]["name"]["const"] for one in schema["anyOf"]] == ["weather", "add", "now"]
    assert schema["anyOf"][1]["properties"]["arguments"]["properties"]["n"] == {"$ref": "#/$defs/t1_number"}
    assert schema["$defs"]["t1_list"] == {"items": {"$ref": "#/$defs/t1_number"}}
    single = forced_grammar(TOOLS[:1], "required")
    assert single is not None and "anyOf" not in json.loads(single.spec)


def test_templates_without_tools_get_them_in_words() -> None:
    told = explain_tools(
        [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": None, "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"n":1}'}}]},
            {"role": "tool", "tool_call_id": "1", "content": "2"},
        ],
        TOOLS[2:],
    )  # fmt: skip
    assert told[0]["content"].startswith("Be kind.\n\nYou may call")  # type: ignore[union-attr]  # text by contract
    assert '{"type":"function","function":{"name":"now"}}' in str(told[0]["content"])
    assert told[1] == {"role": "user", "content": "a\nb"}
    assert told[2]["content"] == '<tool_call>\n{"name": "add", "arguments": {"n":1}}\n</tool_call>'
    assert told[3] == {"role": "user", "content": "<tool_response>\n2\n</tool_response>"}


def test_without_a_system_message_the_words_come_first() -> None:
    told = explain_tools([{"role": "user", "content": "x"}], TOOLS)
    assert [message["role"] for message in told] == ["system", "user"]


def test_templates_with_tools_get_arguments_as_objects() -> None:
    calls = [
        {"function": {"name": "f", "arguments": '{"x": 1}'}},
        {"function": {"name": "g", "arguments": "{"}},
    ]
    parsed = parsed_arguments({"role": "assistant", "tool_calls": calls})
    assert [call["function"]["arguments"] for call in parsed["tool_calls"]] == [{"x": 1}, "{"]  # type: ignore[union-attr,index]  # a message's shape
    assert parsed_arguments({"role": "user", "content": "x"}) == {"role": "user", "content": "x"}
