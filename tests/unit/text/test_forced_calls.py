"""Calls that are forced come in pieces, and the pieces are the call, however the text is cut."""

from __future__ import annotations

import json

import pytest

from services.answer import ToolCallDelta, joined_calls
from services.text.forced_calls import (
    MAX_HEAD_CHARS,
    BareCallStream,
    NamedCallStream,
    RequiredCallStream,
    ValueEnd,
)
from services.text.tools import ToolTransform

HARD = json.dumps({"say": 'a "}" \\ {[ 是', "n": [1, {"x": "\\"}], "e": {}}, ensure_ascii=False)


def new_id(index: int) -> str:
    return f"call_{index}"


def told(stream: ToolTransform, parts: list[str]) -> tuple[str, list[ToolCallDelta]]:
    seen = [stream.push(part) for part in parts] + [stream.flush()]
    return "".join(text for text, _ in seen), [call for _, some in seen for call in some]


def test_a_named_call_streams_its_arguments() -> None:
    stream = NamedCallStream(new_id, "weather")
    seen = [stream.push(part) for part in ('{"ci', 'ty": "P"}')]
    assert seen == [
        ("", (ToolCallDelta(0, '{"ci', "weather", "call_0"),)), ("", (ToolCallDelta(0, 'ty": "P"}'),)),
    ]  # fmt: skip
    assert stream.flush() == ("", ())
    assert stream.num_calls == 1


def test_a_named_call_without_a_token_still_has_a_name() -> None:
    assert NamedCallStream(new_id, "f").flush() == ("", (ToolCallDelta(0, "", "f", "call_0"),))


def test_a_required_call_is_announced_with_its_name_and_streams() -> None:
    stream = RequiredCallStream(new_id)
    assert stream.push('{"name": "add", "argum') == ("", ())
    assert stream.push('ents": ') == ("", ())
    assert stream.push('{"n') == ("", (ToolCallDelta(0, '{"n', "add", "call_0"),))
    assert stream.push('": 1') == ("", (ToolCallDelta(0, '": 1'),))
    assert stream.push("}}  ") == ("", (ToolCallDelta(0, "}"),))
    assert stream.push("\n") == ("", ())
    assert stream.flush() == ("", ())
    assert stream.num_calls == 1


@pytest.mark.parametrize("size", [1, 2, 3, 5, 64, 10_000])
def test_the_pieces_are_the_arguments_to_the_letter(size: int) -> None:
    text = f'\n {{"name":"f" ,\n"arguments":{HARD} }}   '
    text_shown, calls = told(
        RequiredCallStream(new_id), [text[at : at + size] for at in range(0, len(text), size)]
    )
    assert text_shown == ""
    assert joined_calls(calls) == (ToolCallDelta(0, HARD, "f", "call_0"),)
    assert [call.name for call in calls[1:]] == [""] * (len(calls) - 1)
    if size < 5:
        assert len(calls) > len(HARD) // 6


def test_cut_off_in_its_arguments_it_is_a_call_with_half_of_them() -> None:
    shown, calls = told(RequiredCallStream(new_id), ['{"name":"add","arguments":{"n', '": [1,'])
    assert (shown, joined_calls(calls)) == ("", (ToolCallDelta(0, '{"n": [1,', "add", "call_0"),))


@pytest.mark.parametrize("text", ['{"name":"a', "", "no", '{"name": 1}', "[]", '{"name":"f","arguments":3}'])
def test_what_does_not_begin_as_a_call_is_text(text: str) -> None:
    shown, calls = told(RequiredCallStream(new_id), list(text))
    if calls:  # what is no object is told at the end
        assert (shown, calls) == ("", [ToolCallDelta(0, "3", "f", "call_0")])
    else:
        assert shown == text


def test_a_list_is_read_at_its_end() -> None:
    text = '[{"name":"a","arguments":{"x":1}},{"name":"b","arguments":{}}]'
    for parts in ([text], list(text)):
        assert told(RequiredCallStream(new_id), parts) == (
            "", [ToolCallDelta(0, '{"x":1}', "a", "call_0"), ToolCallDelta(1, "{}", "b", "call_1")],
        )  # fmt: skip


@pytest.mark.parametrize("spaces", [MAX_HEAD_CHARS - 40, MAX_HEAD_CHARS, 100_000])
def test_a_long_head_costs_no_more_than_its_bound_and_is_read_at_the_end(spaces: int) -> None:
    text = " " * spaces + '{"name":"a","arguments":{"x":1}}'
    wanted = ("", [ToolCallDelta(0, '{"x":1}', "a", "call_0")])
    assert told(RequiredCallStream(new_id), [text]) == wanted
    shown, calls = told(RequiredCallStream(new_id), [text[at : at + 7] for at in range(0, len(text), 7)])
    assert (shown, list(joined_calls(calls))) == wanted


def test_a_value_ends_where_its_bracket_does() -> None:
    for value in ("{}", "[]", '{"a":"}"}', '["\\\\"]', '{"a":"\\""}', '[{"a":[]},"{"]'):
        for size in (1, 2, 100):
            end, text = ValueEnd(), value + '}], "x"'
            taken = "".join(end.take(text[at : at + size]) for at in range(0, len(text), size))
            assert (taken, end.done) == (value, True)


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        (f'{{"name": "f", "parameters": {HARD}}}', [("f", HARD)]),
        (' <|python_tag|>{"name": "f", "arguments": {}}\n', [("f", "{}")]),
        (
            '{"name": "f", "parameters": {}}; {"name": "g", "parameters": {"x": 1}}',
            [("f", "{}"), ("g", '{"x": 1}')],
        ),
        ('[{"name": "g", "parameters": {"x": 1}}]', [("g", '{"x": 1}')]),
    ],
)
def test_a_bare_call(text: str, calls: list[tuple[str, str]]) -> None:
    for parts in ([text], list(text)):
        shown, found = told(BareCallStream(new_id, ("f", "g")), parts)
        assert (shown, [(one.name, one.arguments) for one in found]) == ("", calls)


@pytest.mark.parametrize(
    "text",
    [
        "Hello {", "  and so", "", "  ", '{"name": "Bob", "age": 3}', '{"name": "f"}', "[1, 2]", "<b>bold</b>",
        '{"name": "other", "parameters": {}}', '{"name": "f", "parameters": {}} and so', "{" * 5000, "<|python",
        '{"name": "f", "parameters": [1]}', '{"name": "f", "parameters": {"x": NaN}}', "<|python_tag|>print(1)",
    ],
)  # fmt: skip
def test_what_is_no_bare_call_is_shown_as_written(text: str) -> None:
    for parts in ([text], list(text)):
        assert told(BareCallStream(new_id, ("f", "g")), parts) == (text, [])


def test_text_passes_a_bare_stream_at_once() -> None:
    stream = BareCallStream(new_id, ("f",))
    assert [stream.push(part)[0] for part in (" ", "<b", ">", "x {")] == ["", " <b", ">", "x {"]
