"""Tool calls as DeepSeek, Mistral and Hermes write them, and as their templates read them."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.request import unpack_ids
from services.text.hf_tokenizer import HfTokenizer
from services.text.tool_choice import explain_tools, parsed_arguments
from services.text.tool_formats import BY_NAME, DEEPSEEK, MISTRAL, ToolFormat
from services.text.tools import ToolCallStream
from tests.unit.text.small_tokenizers import CHATML, byte_level, id_of, save

PARIS, ROME = '{"city": "Paris"}', '{"city": "Rome"}'
MARKED = '{"text": "[TOOL_CALLS]f[ARGS]{} \\"[TOOL_CALLS]\\""}'
LONG_NUMBER = '{"x": ' + "7" * 6000 + "}"
BEGIN, END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"


def v3(name: str, arguments: str) -> str:
    return f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>{name}\n```json\n{arguments}\n```<｜tool▁call▁end｜>"


def v31(name: str, arguments: str) -> str:
    return f"<｜tool▁call▁begin｜>{name}<｜tool▁sep｜>{arguments}<｜tool▁call▁end｜>"


def said(text: str) -> tuple[str, list[tuple[int, str, str]]]:
    """What is shown, and the calls, however the text is cut."""
    told: list[tuple[str, list[tuple[int, str, str]]]] = []
    for size in (1, 7, len(text) or 1):
        stream = ToolCallStream(lambda index: f"call_{index}")
        parts = [stream.push(text[at : at + size]) for at in range(0, len(text), size)] + [stream.flush()]
        calls = [(one.index, one.name, one.arguments) for _, some in parts for one in some]
        told.append(("".join(shown for shown, _ in parts), calls))
    assert told[0] == told[1] == told[2]
    return told[0]


@pytest.mark.parametrize(
    ("text", "shown", "calls"),
    [
        (f"Let me see.{BEGIN}{v3('weather', PARIS)}{END}", "Let me see.", [(0, "weather", PARIS)]),
        (
            f"{BEGIN}{v3('weather', PARIS)}\n{v3('weather', ROME)}{END}",
            "",
            [(0, "weather", PARIS), (1, "weather", ROME)],
        ),
        (f"Ok {BEGIN}{v31('weather', PARIS)}{END}\n", "Ok ", [(0, "weather", PARIS)]),
        (
            f"{BEGIN}{v31('weather', PARIS)}{v31('now', '{}')}{END}",
            "",
            [(0, "weather", PARIS), (1, "now", "{}")],
        ),
        (f"{BEGIN}{v31('weather', PARIS)}", "", [(0, "weather", PARIS)]),  # ended without the last mark
        (f'[TOOL_CALLS] [{{"name": "weather", "arguments": {PARIS}}}]', "", [(0, "weather", PARIS)]),
        (f"Ok.[TOOL_CALLS]weather{PARIS}", "Ok.", [(0, "weather", PARIS)]),
        (
            f"[TOOL_CALLS]weather[ARGS]{PARIS}[TOOL_CALLS]weather[ARGS]{ROME}",
            "",
            [(0, "weather", PARIS), (1, "weather", ROME)],
        ),
        (f'<tool_call>{{"name": "a", "arguments": {PARIS}}}</tool_call>', "", [(0, "a", PARIS)]),
        (f"[TOOL_CALLS]say[ARGS]{MARKED}", "", [(0, "say", MARKED)]),
        (
            f"[TOOL_CALLS]say{MARKED} [TOOL_CALLS]say[CALL_ID]1a[ARGS] {MARKED}\n",
            "",
            [(0, "say", MARKED), (1, "say", MARKED)],
        ),
        (f"[TOOL_CALLS]f{LONG_NUMBER}", "", [(0, "f", LONG_NUMBER)]),
    ],
)
def test_a_call_of_each_format(text: str, shown: str, calls: list[tuple[int, str, str]]) -> None:
    assert said(text) == (shown, calls)


@pytest.mark.parametrize(
    "text",
    [
        f"{BEGIN}{v3('weather', '{')}{END}",
        f"{BEGIN}{v31('two words', PARIS)}{END}",
        f"{BEGIN}{v31('weather', PARIS)} and so on{END}",
        f"{BEGIN}{v31('weather', '[1]')}{END} x",
        f"{BEGIN}{END}",
        "[TOOL_CALLS] see above",
        "[TOOL_CALLS]",
        "[TOOL_CALLS]weather[ARGS]{broken",
        f"[TOOL_CALLS]weather[ARGS]{PARIS} and so on",
        f"[TOOL_CALLS]weather[ARGS]{PARIS}[TOOL_CALLS]",
        f"[TOOL_CALLS]weather[ARGS]{PARIS}[TOOL_CALLS]now",
        '[TOOL_CALLS]weather[ARGS]{"x": NaN}',
        "[TOOL_CALLS]weather[ARGS]" + '{"a":' * 100_000,
        "a list [1, 2] and <b>bold</b>, [TOOL_CALL",
    ],
)
def test_what_is_no_call_is_shown_as_written(text: str) -> None:
    assert said(text) == (text, [])


def test_many_spaces_cost_nothing() -> None:
    spaces = " " * 200_000
    text = f"{BEGIN}<｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json{spaces}x"
    stream = ToolCallStream(lambda index: f"call_{index}")
    assert stream.push(text) == ("", ())
    assert stream.flush() == (text, ())


ADDED = "{{ 'x' + call['function']['arguments'] + 'y' }}"
DUMPED = "{{ call.function.arguments | tojson }}"


@pytest.mark.parametrize("printed", [ADDED, DUMPED, "{{ call.function.arguments }}"])
def test_templates_that_add_arguments_to_text_and_those_that_dump_them(tmp_path: Path, printed: str) -> None:
    template = (
        "{% if tools %}{{ tools | length }}{% endif %}{% for m in messages %}{% for call in m.tool_calls %}"
        + printed
        + "{% endfor %}{% endfor %}"
    )
    made = HfTokenizer.load(save(tmp_path, byte_level(), template=template))
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": PARIS}}
    text = made.chat_text([{"role": "assistant", "content": None, "tool_calls": [call]}])
    assert text.strip("xy") == PARIS


def test_arguments_are_an_object_and_a_text() -> None:
    message = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": PARIS}}]}
    arguments = parsed_arguments(message)["tool_calls"][0]["function"]["arguments"]  # type: ignore[index]
    assert arguments == {"city": "Paris"}
    assert (f"{arguments}", "a" + arguments, arguments + "b") == (PARIS, "a" + PARIS, PARIS + "b")


def test_marks_that_are_special_tokens_have_a_text(tmp_path: Path) -> None:
    library = byte_level()
    library.add_special_tokens([BEGIN, "[TOOL_CALLS]", "<|other|>"])
    made = HfTokenizer.load(save(tmp_path, library, template=CHATML))
    ids = [id_of(library, one) for one in (BEGIN, "<|other|>", "[TOOL_CALLS]")]
    decoder = made.decoder(tools=True)
    assert "".join(map(decoder.push, ids)) == BEGIN + "[TOOL_CALLS]"
    assert made.decoder(tools=True).json_pieces()[ids[0]] == f'"{BEGIN}"'.encode()  # type: ignore[index]
    assert unpack_ids(made.encode(BEGIN)) == ids[:1]


def test_without_tools_marks_that_a_vocabulary_calls_special_have_none(tmp_path: Path) -> None:
    library = byte_level()
    library.add_special_tokens(["[TOOL_CALLS]"])
    library.add_tokens([BEGIN])
    made = HfTokenizer.load(save(tmp_path, library, template=CHATML))
    ids = [*unpack_ids(made.encode("a")), id_of(library, "[TOOL_CALLS]"), id_of(library, BEGIN)]
    assert "".join(map(made.decoder().push, ids)) == "a" + BEGIN
    assert "".join(map(made.decoder(tools=True).push, ids)) == "a[TOOL_CALLS]" + BEGIN
    assert ids[1] not in made.decoder().json_pieces()  # type: ignore[operator]
    with pytest.raises(KeyError):
        made.decoder().json_pieces()[ids[1]]  # type: ignore[index]
    assert made.token_text(ids[1])[0] == "[TOOL_CALLS]"


@pytest.mark.parametrize("name", BY_NAME)
def test_what_a_format_writes_it_reads(name: ToolFormat) -> None:
    form = BY_NAME[name]
    calls = [("weather", PARIS), ("now", "{}")]
    text = form.write(calls)
    block = text.removeprefix(form.open).removesuffix(form.close)
    if name == "hermes":
        assert said(text) == ("", [(0, *calls[0]), (1, *calls[1])])
    else:
        assert form.parse(block) == calls


def test_with_a_format_set_only_its_marks_are_heard() -> None:
    text = f"{BEGIN}{v31('weather', PARIS)}{END}"
    deaf = ToolCallStream(str, (MISTRAL,))
    assert (deaf.push(text), deaf.flush()) == ((text, ()), ("", ()))
    assert ToolCallStream(str, (DEEPSEEK,)).push(text)[1][0].name == "weather"


@pytest.mark.parametrize("name", BY_NAME)
def test_templates_without_tools_are_told_the_format_that_is_set(tmp_path: Path, name: ToolFormat) -> None:
    tools = [{"type": "function", "function": {"name": "weather"}}]
    call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": PARIS}}
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
    told = explain_tools(messages, tools, name)
    written = BY_NAME[name].write([("weather", '{"city":"Paris"}')])
    assert told[2]["content"] == written
    example = BY_NAME[name].write([("<function-name>", "<args-json-object>")])
    assert str(told[0]["content"]).endswith(example.replace('"<function-name>"', "<function-name>"))
    made = HfTokenizer.load(save(tmp_path, byte_level(), template=CHATML), name)
    assert written in made.chat_text(messages, tools)
