"""Every shape that HTTP answers in, read back by the official SDK's own types."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from openai.types import Completion, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from services.answer import AnswerHead, AnswerTail, Delta, TokenText, ToolCallDelta
from services.api import encode
from services.api.status import STATUS
from services.errors import MeshError, OverloadError, RequestError
from services.outcome import Reason
from services.request import InferenceRequest, SamplingParams, Usage

HEAD = AnswerHead("req-1", 'model "m"', 1_700_000_000, "miss")
TAIL = AnswerTail(Usage(10, 4, 3), (0.75, 0.5))
TOKEN = TokenText("é", b"\xc3\xa9", -0.5, (("é", b"\xc3\xa9", -0.5), ("e", b"e", float("-inf"))))
DELTAS = [
    Delta(0, 'a "quoted"\n'),
    Delta(1, "你好", logprobs=(TOKEN, TOKEN)),
    Delta(0, "", tool_calls=(ToolCallDelta(0, '{"a"', "add", "call_1"),)),
    Delta(0, "", tool_calls=(ToolCallDelta(0, ": 1}"), ToolCallDelta(1, "{}", "sub", "call_2"))),
    Delta(1, "", finish="length"),
    Delta(0, "end", finish="tool_calls"),
]
TEXT_DELTAS = [*DELTAS[:2], Delta(1, "", finish="length"), Delta(0, "end", finish="stop")]


def request(kind: Any, **fields: Any) -> InferenceRequest:
    return InferenceRequest(kind=kind, model="m", sampling=SamplingParams(5), n=2, **fields)


def events(encoder: encode.StreamEncoder, deltas: list[Delta] = DELTAS, head: AnswerHead = HEAD) -> list[str]:
    data = encoder.head(head) + b"".join(map(encoder.delta, deltas)) + encoder.tail(TAIL)
    assert data.endswith(b"\n\n")
    return data.decode().removesuffix("\n\n").split("\n\n")


def strict(model: Any, text: str | bytes) -> Any:
    """Parse with types checked: the SDK itself builds without looking."""
    return model.model_validate_json(text, strict=False)


def payloads(encoder: encode.StreamEncoder, deltas: list[Delta] = DELTAS) -> list[str]:
    found = [event.removeprefix("data: ") for event in events(encoder, deltas)]
    assert found.pop() == "[DONE]"
    return found


def test_streamed_chat() -> None:
    chunks = [strict(ChatCompletionChunk, data) for data in payloads(encode.stream(request("chat")))]
    assert {c.id for c in chunks} == {"chatcmpl-req-1"}
    assert {c.model for c in chunks} == {'model "m"'}
    assert [c.choices[0].delta.role for c in chunks[:2]] == ["assistant", "assistant"]
    texts = {0: "", 1: ""}
    for chunk in chunks:
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == {0: 'a "quoted"\nend', 1: "你好"}
    first, second = chunks[4].choices[0].delta.tool_calls[0], chunks[5].choices[0].delta.tool_calls
    assert (first.id, first.function.name, first.function.arguments) == ("call_1", "add", '{"a"')
    assert [(t.index, t.id, t.function.arguments) for t in second] == [(0, None, ": 1}"), (1, "call_2", "{}")]
    token = chunks[3].choices[0].logprobs.content[0]
    assert (token.token, token.logprob, token.bytes) == ("é", -0.5, [195, 169])
    assert token.top_logprobs[1].logprob == -9999.0
    assert [c.choices[0].finish_reason for c in chunks[-2:]] == ["length", "tool_calls"]


def test_usage_and_confidence_come_last_when_asked_for() -> None:
    wanted = request("chat", include_usage=True, confidence=True)
    data = payloads(encode.stream(wanted))
    assert all(json.loads(d)["usage"] is None for d in data[:-1])
    last = strict(ChatCompletionChunk, data[-1])
    assert last.choices == []
    assert (last.usage.prompt_tokens, last.usage.completion_tokens, last.usage.total_tokens) == (10, 4, 14)
    assert last.usage.prompt_tokens_details.cached_tokens == 3
    assert json.loads(data[-1])["confidence"] == [0.75, 0.5]
    only = json.loads(payloads(encode.stream(request("chat", confidence=True)))[-1])
    assert only["confidence"] == [0.75, 0.5]
    assert "usage" not in only
    assert all("usage" not in json.loads(d) for d in payloads(encode.stream(request("chat"))))


def test_streamed_completion() -> None:
    data = payloads(encode.stream(request("completion")), TEXT_DELTAS)
    # OpenAI streams `finish_reason: null`, which its SDK's own type does not admit (and does not check)
    chunks = [strict(Completion, d.replace('"finish_reason":null', '"finish_reason":"stop"')) for d in data]
    assert chunks[0].choices[0].text == 'a "quoted"\n'
    logprobs = chunks[1].choices[0].logprobs
    assert (logprobs.tokens, logprobs.token_logprobs, logprobs.text_offset) == (
        ["é", "é"],
        [-0.5, -0.5],
        [0, 1],
    )
    assert logprobs.top_logprobs[0] == {"é": -0.5, "e": -9999.0}
    assert [json.loads(d)["choices"][0]["finish_reason"] for d in data] == [None, None, "length", "stop"]


def ids(found: list[str]) -> list[str]:
    return [event.split("\n")[0].removeprefix("id: ") for event in found if event.startswith("id: ")]


def test_event_ids_say_how_far_the_client_is() -> None:
    plain = events(encode.stream(request("chat", include_usage=True)))
    assert not ids(plain)
    encoder = encode.stream(request("chat", include_usage=True))
    found = events(encoder, head=msgspec.structs.replace(HEAD, resumable=True))
    assert [event.partition("\n")[2] for event in found[:-1]] == plain[:-1]
    named = ids(found)
    assert named[:2] == ["req-1/o1", "req-1/o2"]
    assert named[-1] == "req-1/end"
    assert len(set(named)) == len(found) - 1
    assert found[-1] == "data: [DONE]"


@pytest.mark.parametrize("kind", ["chat", "completion"])
def test_the_rest_of_a_stream_is_what_the_client_lacks(kind: Any) -> None:
    head = msgspec.structs.replace(HEAD, resumable=True)
    deltas = DELTAS if kind == "chat" else TEXT_DELTAS
    whole = events(encode.stream(request(kind, include_usage=True)), deltas, head)
    opening = 2 if kind == "chat" else 0
    for cut, event_id in enumerate(ids(whole)):
        encoder = encode.stream(request(kind, include_usage=True, last_event_id=event_id))
        had = max(0, cut + 1 - opening)
        for delta in deltas[:had]:
            encoder.had(delta)
        rest = events(encoder, deltas[had:], head)
        if event_id.endswith("/end"):
            assert rest == ["data: [DONE]"]
        else:
            assert rest == whole[cut + 1 :]


def test_an_error_in_the_middle_is_an_event_and_no_done() -> None:
    encoder = encode.stream(request("chat"))
    encoder.head(HEAD)
    data = encoder.error(MeshError(Reason.ENGINE_LOST, "gone"))
    assert json.loads(data.decode().removeprefix("data: "))["error"]["code"] == "engine_lost"
    assert b"[DONE]" not in data


def collect(kind: str) -> bytes:
    encoder = encode.unary(request(kind))
    encoder.head(HEAD)
    for delta in DELTAS if kind == "chat" else TEXT_DELTAS:
        encoder.delta(delta)
    return encoder.tail(TAIL)


def test_whole_chat() -> None:
    answer = strict(ChatCompletion, collect("chat"))
    first, second = answer.choices
    assert (first.message.content, second.message.content) == ('a "quoted"\nend', "你好")
    assert [(t.id, t.function.name, t.function.arguments) for t in first.message.tool_calls] == [
        ("call_1", "add", '{"a": 1}'),
        ("call_2", "sub", "{}"),
    ]
    assert (first.finish_reason, second.finish_reason) == ("tool_calls", "length")
    assert len(second.logprobs.content) == 2
    assert answer.usage.total_tokens == 14
    assert json.loads(collect("chat"))["confidence"] == [0.75, 0.5]


def test_whole_completion_and_generate() -> None:
    answer = strict(Completion, collect("completion"))
    assert answer.choices[1].text == "你好"
    assert answer.choices[1].logprobs.text_offset == [0, 1]
    assert json.loads(collect("generate")) == {"response": 'a "quoted"\nend'}


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_has_an_error_body(reason: Reason) -> None:
    status, headers, body = encode.error_response(MeshError(reason, "what", param="a.0"))
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    param = None if reason is Reason.METHOD_NOT_ALLOWED else "a.0"
    assert (status, error["code"], error["param"]) == (STATUS[reason].http, STATUS[reason].code, param)
    assert b"retry-after" not in headers
    assert (b"allow:" in headers) == (status == 405)
    assert (b"x-should-retry: false\r\n" in headers) == (reason is Reason.QUOTA_EXCEEDED)
    assert (b"www-authenticate" in headers) == (status == 401)


@pytest.mark.parametrize(("wait_s", "line"), [(0.2, b"1"), (2.1, b"3"), (-1.0, b"1")])
def test_retry_after(wait_s: float, line: bytes) -> None:
    _, headers, _ = encode.error_response(OverloadError(Reason.SHED, "busy", retry_after_s=wait_s))
    assert b"retry-after: %b\r\n" % line in headers
    endless = OverloadError(Reason.SHED, "busy", retry_after_s=float("inf"))
    assert b"retry" not in encode.error_response(endless)[1]


def test_a_hostile_param_cannot_split_headers() -> None:
    _, headers, body = encode.error_response(RequestError(Reason.INVALID_FIELD, "x\r\ny: z", param="a\r\nb"))
    assert headers.count(b"\r\n") == 1
    assert json.loads(body)["error"]["param"] == "a\r\nb"


def test_a_method_that_is_not_allowed_names_those_that_are() -> None:
    error = RequestError(Reason.METHOD_NOT_ALLOWED, "no", param="GET, POST")
    _, headers, body = encode.error_response(error)
    assert b"\r\nallow: GET, POST\r\n" in headers
    assert json.loads(body)["error"]["param"] is None  # no field is wrong


def test_models() -> None:
    listed = json.loads(encode.models(["a", "b"], 5))
    assert [strict(Model, json.dumps(m)).id for m in listed["data"]] == ["a", "b"]
    assert json.loads(encode.model("a", 5)) == listed["data"][0]
