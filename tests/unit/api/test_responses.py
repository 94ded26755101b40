"""The Responses API's wire: items to messages and back, events in order, refusals in the words of its own body."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from services.answer import AnswerHead, AnswerTail, Delta, ToolCallDelta
from services.api import encode
from services.api.responses import parse_responses, renamed
from services.config import LimitsConfig
from services.errors import OverloadError, RequestError
from services.outcome import Reason
from services.request import Usage

LIMITS = LimitsConfig(max_messages=8)
EVENTS: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
TOOL = {"type": "function", "name": "add", "parameters": {"type": "object"}, "strict": True}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


def parse(**fields: Any) -> Any:
    return parse_responses(json.dumps({"model": "m", "input": "Hi"} | fields).encode(), {}, LIMITS)


def messages(*items: dict[str, Any], **fields: Any) -> tuple[dict[str, Any], ...]:
    return parse(input=list(items), **fields).messages


def said(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def test_a_text_is_what_the_user_says() -> None:
    assert parse().messages == (said("user", "Hi"),)
    told = parse(instructions="Be kind.").messages
    assert told == (said("system", "Be kind."), said("user", "Hi"))


def test_a_conversation_with_everything_that_an_answer_may_hold() -> None:
    call = {
        "type": "function_call",
        "call_id": "c1",
        "name": "add",
        "arguments": "{}",
        "id": "fc_1",
        "status": None,
    }
    told = messages(
        said("developer", "Short."),
        {"type": "message", **said("user", [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}])},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": None,
         "content": [{"type": "reasoning_text", "text": "I think"}]},
        {"type": "message", "id": "msg_1", "status": "completed", "phase": "commentary", "role": "assistant",
         "content": [{"type": "output_text", "text": "Well", "annotations": [], "logprobs": []}]},
        call, {**call, "call_id": "c2"},
        {"type": "function_call_output", "call_id": "c1", "output": "1"},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "2"}]},
    )  # fmt: skip
    plain = {"type": "function", "function": {"name": "add", "arguments": "{}"}}
    assert told == (
        said("developer", "Short."), said("user", "a\nb"),
        said("assistant", "Well") | {"reasoning_content": "I think",
                                     "tool_calls": [{"id": "c1", **plain}, {"id": "c2", **plain}]},
        said("tool", "1") | {"tool_call_id": "c1"}, said("tool", "2") | {"tool_call_id": "c2"},
    )  # fmt: skip


def test_turns_of_the_assistant_stay_apart_and_thoughts_alone_are_one() -> None:
    thought = {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "x"}]}
    told = messages(said("assistant", "a"), said("assistant", "b"), thought, said("user", "c"))
    assert told == (
        said("assistant", "a"), said("assistant", "b"), said("assistant", "") | {"reasoning_content": "x"},
        said("user", "c"),
    )  # fmt: skip


def test_fields_become_those_of_a_chat() -> None:
    request = parse(
        max_output_tokens=7, temperature=0.5, top_p=0.9, seed=3, top_k=4, stream=True, tools=[TOOL],
        tool_choice={"type": "function", "name": "add"}, user="u", priority_band="vip",
        chat_template_kwargs={"thinking": True}, store=False, include=["reasoning.encrypted_content"],
        reasoning={"summary": "auto", "effort": None}, text={"verbosity": "medium"}, truncation="disabled",
        stream_options={"include_obfuscation": False}, parallel_tool_calls=False, service_tier="auto",
    )  # fmt: skip
    sampling = request.sampling
    assert (sampling.max_tokens, sampling.temperature, sampling.top_p, sampling.seed, sampling.top_k) == (
        7, 0.5, 0.9, 3, 4,
    )  # fmt: skip
    assert (request.kind, request.stream, request.person, request.band) == ("chat", True, "u", "vip")
    assert request.tools == (
        {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}},
    )
    assert request.tool_choice == {"type": "function", "function": {"name": "add"}}
    assert request.template_kwargs == {"thinking": True}
    assert request.told["tools"] == [TOOL | {"description": None}]


def test_a_form() -> None:
    form = {"type": "json_schema", "name": "a", "schema": SCHEMA, "strict": True}
    request = parse(text={"format": form})
    assert json.loads(request.sampling.guided.spec) == SCHEMA
    assert request.told["text"] == {"format": form}
    assert parse(text={"format": {"type": "json_object"}}).sampling.guided.kind == "json_object"
    assert parse(text={"format": {"type": "text"}}).sampling.guided is None


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"previous_response_id": "resp_1"}, "previous_response_id"),
    ({"store": True}, "store"),
    ({"background": True}, "background"),
    ({"conversation": "conv_1"}, "conversation"),
    ({"truncation": "auto"}, "truncation"),
    ({"reasoning": {"effort": "high"}}, "reasoning.effort"),
    ({"include": ["file_search_call.results"]}, "include.0"),
    ({"top_logprobs": 3}, "top_logprobs"),
    ({"max_output_tokens": 0}, "max_output_tokens"),
    ({"temperature": 3}, "temperature"),
    ({"tools": [{"type": "web_search"}]}, "tools.0.type"),
    ({"tools": [TOOL | {"name": "a b"}]}, "tools.0.name"),
    ({"tools": [TOOL | {"parameters": {"type": "nothing"}}]}, "tools.0.parameters"),
    ({"tools": [TOOL, TOOL]}, "tools.1.name"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tools": [TOOL], "tool_choice": {"type": "function", "name": "x"}}, "tool_choice.name"),
    ({"text": {"format": {"type": "json_schema", "name": "a"}}}, "text.format"),
    ({"text": {"format": {"type": "json_schema", "name": "a b", "schema": {}}}}, "text.format.name"),
    ({"text": {"format": {"type": "text", "name": "a"}}}, "text.format"),
    ({"text": {"verbosity": "low"}}, "text.verbosity"),
    ({"input": []}, "input"),
    ({"input": [said("user", "x")] * 9}, "input"),
    ({"input": [said("user", "x"), {"role": "user"}]}, "input.1.content"),
    ({"input": [{"type": "item_reference", "id": "x"}]}, "input.0.type"),
    ({"input": [said("user", [{"type": "input_image", "image_url": "x"}])]}, "input.0.content.0.type"),
    ({"input": [said("user", [])]}, "input.0.content"),
    ({"input": [said("tool", "x")]}, "input.0.role"),
    ({"instructions": "x", "input": [said("user", "x"), {"type": "function_call", "call_id": "", "name": "f",
      "arguments": "{}"}]}, "input.1.call_id"),
    ({"input": [{"type": "function_call_output", "call_id": "x" * 300, "output": ""}]}, "input.0.call_id"),
    ({"frobnicate": 1}, "frobnicate"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "param"), WRONG, ids=str)
def test_what_is_not_supported_is_refused_by_its_own_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse(**fields)
    assert caught.value.param == param
    assert "messages" not in caught.value.message and "function." not in caught.value.message


def test_a_cut_stream_is_not_resumed() -> None:
    headers = {"last-event-id": "req-1/1-2", "idempotency-key": "k"}
    with pytest.raises(RequestError, match="last-event-id"):
        parse_responses(b'{"model": "m", "input": "Hi", "stream": true}', headers, LIMITS)


def test_later_refusals_are_renamed_too() -> None:
    late = renamed(RequestError(Reason.CONTEXT_TOO_LONG, "messages and max_tokens", param="max_tokens"))
    assert (late.param, late.message) == ("max_output_tokens", "messages and max_output_tokens")
    assert (
        renamed(RequestError(Reason.INVALID_FIELD, "messages has no tokens", param="messages")).param
        == "input"
    )
    busy = OverloadError(Reason.SHED, "busy", retry_after_s=2.0)
    assert renamed(busy) is busy


DELTAS = [
    Delta(0, "", reasoning="I "), Delta(0, "", reasoning="think"), Delta(0, "Well"), Delta(0, ", so", reasoning=""),
    Delta(0, "", tool_calls=(ToolCallDelta(0, "", "add", "call_1"),)),
    Delta(0, "", tool_calls=(ToolCallDelta(0, '{"a"'),)),
    Delta(0, "", tool_calls=(ToolCallDelta(0, ":1}"), ToolCallDelta(1, "{}", "now", "call_2"))),
    Delta(0, "", "tool_calls"),
]  # fmt: skip
HEAD, TAIL = AnswerHead("req-1", "m", 5), AnswerTail(Usage(4, 9, 2, 3))


def streamed(deltas: list[Delta], **fields: Any) -> list[dict[str, Any]]:
    encoder = encode.stream(parse(stream=True, **fields))
    assert encoder.around(0) is None
    text = encoder.head(HEAD) + b"".join(map(encoder.delta, deltas)) + encoder.tail(TAIL)
    events: list[dict[str, Any]] = []
    for block in text.decode().strip().split("\n\n"):
        name, data = block.split("\n")
        events.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {events[-1]['type']}"
        EVENTS.validate_python(events[-1])
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events


def whole(deltas: list[Delta], **fields: Any) -> dict[str, Any]:
    encoder = encode.unary(parse(**fields))
    encoder.head(HEAD)
    for delta in deltas:
        encoder.delta(delta)
    made = json.loads(encoder.tail(TAIL))
    Response.model_validate(made)
    return made


def test_a_whole_response() -> None:
    made = whole(DELTAS, tools=[TOOL])
    assert (made["id"], made["status"], made["store"], made["error"]) == (
        "resp_req-1",
        "completed",
        False,
        None,
    )
    thought, message, add, now = made["output"]
    assert thought["content"] == [{"type": "reasoning_text", "text": "I think"}]
    assert message["content"][0]["text"] == "Well, so"
    assert (add["call_id"], add["name"], add["arguments"]) == ("call_1", "add", '{"a":1}')
    assert (now["call_id"], now["name"], now["arguments"]) == ("call_2", "now", "{}")
    assert made["usage"] == {
        "input_tokens": 4, "output_tokens": 9, "total_tokens": 13,
        "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 3},
    }  # fmt: skip


def test_the_events_are_the_whole_response_in_pieces() -> None:
    events = streamed(DELTAS, tools=[TOOL])
    assert [event["type"].removeprefix("response.") for event in events] == [
        "created", "in_progress",
        "output_item.added", "content_part.added", "reasoning_text.delta", "reasoning_text.delta",
        "reasoning_text.done", "content_part.done", "output_item.done",
        "output_item.added", "content_part.added", "output_text.delta", "output_text.delta",
        "output_text.done", "content_part.done", "output_item.done",
        "output_item.added", "function_call_arguments.delta", "function_call_arguments.delta",
        "function_call_arguments.done", "output_item.done",
        "output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done",
        "completed",
    ]  # fmt: skip
    assert events[-1]["response"] == whole(DELTAS, tools=[TOOL])
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert done == events[-1]["response"]["output"]
    for event in events:
        if "item_id" in event:
            assert event["item_id"] == done[event["output_index"]]["id"]


@pytest.mark.parametrize(
    ("finish", "reason"), [("length", "max_output_tokens"), ("content_filter", "content_filter")]
)
def test_a_response_that_is_not_complete_says_why(finish: Any, reason: str) -> None:
    deltas = [Delta(0, "a"), Delta(0, "", finish)]
    made = whole(deltas)
    assert (made["status"], made["incomplete_details"]) == ("incomplete", {"reason": reason})
    assert made["output"][-1]["status"] == "incomplete"
    assert streamed(deltas)[-1] | {"sequence_number": 0} == {
        "type": "response.incomplete", "sequence_number": 0, "response": made,
    }  # fmt: skip


def test_an_empty_answer_is_an_empty_message() -> None:
    (item,) = whole([Delta(0, "", "stop")])["output"]
    assert (item["type"], item["content"][0]["text"]) == ("message", "")


def test_a_failure_in_the_middle_is_the_last_event() -> None:
    encoder = encode.stream(parse(stream=True))
    encoder.head(HEAD)
    encoder.delta(Delta(0, "a"))
    name, data = encoder.error(OverloadError(Reason.SHED, "busy")).decode().strip().split("\n")
    event = json.loads(data.removeprefix("data: "))
    assert name == "event: response.failed"
    assert event["response"]["status"] == "failed"
    assert event["response"]["error"] == {"code": "shed", "message": "busy"}
