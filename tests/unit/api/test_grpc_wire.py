"""HTTP and gRPC held together: the same request means the same, and is refused for the same reason."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from hypothesis import given
from hypothesis import strategies as st

from services.answer import AnswerHead, AnswerTail, Delta, TokenText, ToolCallDelta
from services.api import grpc_encode
from services.api._generated.expertmesh.v1 import inference_pb2 as pb
from services.api.grpc_convert import chat_from_bytes, text_from_bytes
from services.api.openai import parse_chat, parse_completion
from services.api.status import STATUS
from services.config import LimitsConfig
from services.errors import MeshError, RequestError
from services.outcome import Reason
from services.request import InferenceRequest, SamplingParams, Usage

LIMITS = LimitsConfig(max_body_bytes=100_000)
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": SCHEMA}}
PB_TOOL = {"name": "f", "description": "d", "parameters_json": json.dumps(SCHEMA)}
HI = [{"role": "user", "content": "hi"}]
PB_HI = [{"role": "ROLE_USER", "content": "hi"}]
SAMPLING: dict[str, Any] = {
    "max_tokens": 5, "temperature": 0.5, "top_p": 0.9, "n": 2, "seed": -7, "stop": ["a", "b"],
    "stop_token_ids": [3],
    "presence_penalty": 0.5, "frequency_penalty": -0.5, "repetition_penalty": 1.1, "logit_bias": {"5": 1.5},
    "top_k": 4, "min_p": 0.1, "min_tokens": 1, "ignore_eos": True,
}  # fmt: skip

SAME_CHAT: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"messages": HI}, {"messages": PB_HI}),
    ({"messages": HI, **SAMPLING}, {"messages": PB_HI, "sampling": SAMPLING}),
    ({"messages": HI, "logprobs": True, "top_logprobs": 2}, {"messages": PB_HI, "sampling": {"logprobs": 2}}),
    (
        {"messages": [
            {"role": "system", "content": "s"}, {"role": "developer", "content": "d"},
            {"role": "user", "content": "u", "name": "ann"}, {"role": "assistant", "tool_calls": [CALL]},
            {"role": "tool", "content": "1", "tool_call_id": "c"}]},
        {"messages": [
            {"role": "ROLE_SYSTEM", "content": "s"}, {"role": "ROLE_DEVELOPER", "content": "d"},
            {"role": "ROLE_USER", "content": "u", "name": "ann"},
            {"role": "ROLE_ASSISTANT", "tool_calls": [{"id": "c", "name": "f", "arguments": "{}"}]},
            {"role": "ROLE_TOOL", "content": "1", "tool_call_id": "c"}]},
    ),
    (
        {"messages": HI, "tools": [TOOL], "tool_choice": "required"},
        {"messages": PB_HI, "tools": [PB_TOOL], "tool_choice": {"mode": "TOOL_MODE_REQUIRED"}},
    ),
    (
        {"messages": HI, "tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}},
        {"messages": PB_HI, "tools": [PB_TOOL], "tool_choice": {"function_name": "f"}},
    ),
    ({"messages": HI, "guided_json": SCHEMA},
    {"messages": PB_HI, "form": {"guided_json": json.dumps(SCHEMA)}}),
    ({"messages": HI, "guided_regex": "a+"}, {"messages": PB_HI, "form": {"guided_regex": "a+"}}),
    ({"messages": HI, "guided_choice": ["a"]},
    {"messages": PB_HI, "form": {"guided_choice": {"texts": ["a"]}}}),
    ({"messages": HI, "response_format": {"type": "json_object"}},
    {"messages": PB_HI, "form": {"json_object": True}}),
    (
        {"messages": HI, "priority_band": "vip", "confidence": True, "user": "u", "metadata": {"a": "b"}},
        {"messages": PB_HI, "options": {"priority_band": "vip", "confidence": True, "user": "u", "metadata": {"a": "b"}}
        },
    ),
]  # fmt: skip

SAME_REFUSAL: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"messages": []}, {}),
    ({"messages": [{"role": "user", "content": 5}]}, {"messages": [{"role": "ROLE_USER"}]}),
    ({"messages": [{"role": "king"}]}, {"messages": [{"content": "a"}]}),
    ({"messages": [{"role": "tool", "content": ""}]}, {"messages": [{"role": "ROLE_TOOL", "content": ""}]}),
    ({"messages": HI, "tools": [TOOL, TOOL]}, {"messages": PB_HI, "tools": [PB_TOOL, PB_TOOL]}),
    ({"messages": HI, "tool_choice": "required"},
    {"messages": PB_HI, "tool_choice": {"mode": "TOOL_MODE_REQUIRED"}}),
    ({"messages": HI, "guided_regex": "("}, {"messages": PB_HI, "form": {"guided_regex": "("}}),
    ({"messages": HI, "guided_json": {"type": "x"}},
    {"messages": PB_HI, "form": {"guided_json": '{"type": "x"}'}}),
    ({"messages": HI, "guided_json": "{"}, {"messages": PB_HI, "form": {"guided_json": "{"}}),
    ({"messages": HI, "priority_band": "a b"}, {"messages": PB_HI, "options": {"priority_band": "a b"}}),
    ({"messages": HI, "logprobs": True, "top_logprobs": 21},
    {"messages": PB_HI, "sampling": {"logprobs": 21}}),
    *[
        ({"messages": HI, **wrong}, {"messages": PB_HI, "sampling": wrong})
        for wrong in (
            {"temperature": 3}, {"top_p": 0}, {"n": 0}, {"n": 17}, {"max_tokens": 0}, {"stop": ["a"] * 17},
            {"stop": [""]}, {"presence_penalty": 3}, {"frequency_penalty": -3}, {"repetition_penalty": 0},
            {"logit_bias": {"1": 200}}, {"top_k": -2}, {"min_p": 2}, {"min_tokens": 9, "max_tokens": 5},
        )
    ],
]  # fmt: skip


def over_http(fields: dict[str, Any]) -> InferenceRequest:
    return parse_chat(json.dumps({"model": "m", **fields}).encode(), {}, LIMITS)


def over_grpc(fields: dict[str, Any], left_s: float | None = None, **metadata: str) -> InferenceRequest:
    message = ParseDict({"model": "m", **fields}, pb.ChatRequest())
    return chat_from_bytes(message.SerializeToString(), metadata, left_s, LIMITS, stream=False)


@pytest.mark.parametrize(("http", "grpc"), SAME_CHAT, ids=range(len(SAME_CHAT)))
def test_the_same_chat_means_the_same(http: dict[str, Any], grpc: dict[str, Any]) -> None:
    assert over_http(http) == over_grpc(grpc)


@pytest.mark.parametrize(("http", "grpc"), SAME_REFUSAL, ids=range(len(SAME_REFUSAL)))
def test_the_same_fault_has_the_same_reason(http: dict[str, Any], grpc: dict[str, Any]) -> None:
    with pytest.raises(RequestError) as first:
        over_http(http)
    with pytest.raises(RequestError) as second:
        over_grpc(grpc)
    assert (first.value.reason, first.value.param) == (second.value.reason, second.value.param)


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [("a", [{"text": "a"}]), (["a", "b"], [{"text": "a"}, {"text": "b"}]),
    ([[1, 2]], [{"token_ids": {"ids": [1, 2]}}])],
)  # fmt: skip
def test_the_same_text_means_the_same(prompt: Any, prompts: Any) -> None:
    http = parse_completion(
        json.dumps({"model": "m", "prompt": prompt, "echo": False, "n": 2}).encode(), {}, LIMITS
    )
    message = ParseDict({"model": "m", "prompts": prompts, "sampling": {"n": 2}}, pb.TextRequest())
    assert text_from_bytes(message.SerializeToString(), {}, None, LIMITS, stream=False) == http


@pytest.mark.parametrize("prompts", [[], [{}], [{"text": ""}], [{"text": "a"}, {"token_ids": {"ids": [1]}}]])
def test_bad_prompts(prompts: Any) -> None:
    message = ParseDict({"model": "m", "prompts": prompts}, pb.TextRequest())
    with pytest.raises(RequestError):
        text_from_bytes(message.SerializeToString(), {}, None, LIMITS, stream=True)


def test_nan_and_infinity_are_refused() -> None:
    for name in (
        "temperature",
        "top_p",
        "min_p",
        "presence_penalty",
        "frequency_penalty",
        "repetition_penalty",
    ):
        for value in ("NaN", "Infinity", "-Infinity"):
            with pytest.raises(RequestError) as caught:
                over_grpc({"messages": PB_HI, "sampling": {name: value}})
            assert caught.value.param == name


def test_the_calls_deadline_is_the_requests() -> None:
    assert over_grpc({"messages": PB_HI}, left_s=2.5).deadline_s == 2.5
    assert over_grpc({"messages": PB_HI}, left_s=1e9).deadline_s == LIMITS.max_deadline_s
    assert over_grpc({"messages": PB_HI}, left_s=9.0, **{"x-request-timeout-s": "2"}).deadline_s == 2.0
    assert over_grpc({"messages": PB_HI}).deadline_s is None


def test_options_and_metadata_are_wishes() -> None:
    options = {"cache": "CACHE_USE_NO_STORE"}
    request = over_grpc({"messages": PB_HI, "options": options}, **{"cache-control": "no-cache"})
    assert request.cache == "no-store"
    assert over_grpc({"messages": PB_HI}, **{"x-priority-band": "batch"}).band == "batch"
    for named in (
        over_grpc({"messages": PB_HI, "options": {"idempotency_key": "k"}}),
        over_grpc({"messages": PB_HI}, **{"idempotency-key": "k"}),
    ):
        assert named.idempotency_key == "k"
    with pytest.raises(RequestError) as caught:
        over_grpc({"messages": PB_HI, "options": {"idempotency_key": "a b"}})
    assert (caught.value.reason, caught.value.param) == (Reason.INVALID_FIELD, "idempotency_key")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\xff\xff", Reason.INVALID_JSON),
        (b"\x0a\x02\xff\xfe", Reason.INVALID_JSON),  # a model that is not UTF-8
        (b"\x0a\x01m\xf8\x07\x01", Reason.UNSUPPORTED_FIELD),  # field 127
        (b"\x1a\x03\xf8\x07\x01", Reason.UNSUPPORTED_FIELD),  # field 127 of `sampling`
        (b"\x12\x06\x08\x63\x12\x02hi", Reason.INVALID_FIELD),  # a role that is not in the enum
        (b"\x3a\x02\x20\x63", Reason.INVALID_FIELD),  # options.cache = 99
        (b"\x0a" * 200_000, Reason.BODY_TOO_LARGE),
        (b"\x12" * 50_000, Reason.INVALID_JSON),
    ],
)
def test_what_is_not_a_request(data: bytes, reason: Reason) -> None:
    with pytest.raises(RequestError) as caught:
        chat_from_bytes(data, {}, None, LIMITS, stream=False)
    assert caught.value.reason == reason


@given(st.integers(0, 300), st.text(max_size=200))
def test_hand_written_deltas_are_protobufs(choice: int, text: str) -> None:
    text = text.encode("utf-8", "replace").decode()
    wanted = pb.StreamEvent(delta=pb.StreamDelta(choice=choice, text=text)).SerializeToString()
    assert grpc_encode.event_delta(Delta(choice, text)) == wanted


def test_streamed_events() -> None:
    head = AnswerHead("r", "m", 5, "hit")
    token = TokenText("é", b"\xc3\xa9", -0.5, (("e", b"e", float("-inf")),))
    begin = pb.StreamEvent.FromString(grpc_encode.event_begin(head)).begin
    assert (begin.request_id, begin.model, begin.created, begin.cache) == ("r", "m", 5, "hit")
    rich = Delta(1, "x", "tool_calls", (token,), (ToolCallDelta(0, "{}", "f", "c"),))
    delta = pb.StreamEvent.FromString(grpc_encode.event_delta(rich)).delta
    assert (delta.choice, delta.text, delta.finish_reason) == (1, "x", pb.FINISH_REASON_TOOL_CALLS)
    assert (delta.tool_calls[0].name, delta.logprobs[0].top[0].logprob) == ("f", -9999.0)
    end = pb.StreamEvent.FromString(grpc_encode.event_end(AnswerTail(Usage(3, 2, 1), (0.5,)))).end
    assert (end.usage.total_tokens, end.usage.cached_tokens, list(end.confidence)) == (5, 1, [0.5])


@pytest.mark.parametrize("kind", ["chat", "completion"])
def test_whole_answers(kind: Any) -> None:
    answer = grpc_encode.WholeAnswer(InferenceRequest(kind, "m", SamplingParams(5), n=2))
    answer.head(AnswerHead("r", "m", 5))
    for delta in (Delta(0, "a"), Delta(1, "b", "length"), Delta(0, "c", "stop")):
        answer.delta(delta)
    data = answer.tail(AnswerTail(Usage(3, 2), (0.5, 0.25)))
    response = (pb.ChatResponse if kind == "chat" else pb.TextResponse).FromString(data)
    texts = [c.content if kind == "chat" else c.text for c in response.choices]
    assert texts == ["ac", "b"]
    assert [c.finish_reason for c in response.choices] == [pb.FINISH_REASON_STOP, pb.FINISH_REASON_LENGTH]
    assert [c.confidence for c in response.choices] == [0.5, 0.25]
    assert response.usage.total_tokens == 5


@pytest.mark.parametrize("reason", list(Reason))
def test_rich_errors(reason: Reason) -> None:
    code, message, data = grpc_encode.status_of(MeshError(reason, "what", param="n", retry_after_s=1.5))
    status = Status.FromString(data)
    assert (status.code, status.message, code, message) == (code, "what", STATUS[reason].grpc, "what")
    info, retry = ErrorInfo(), RetryInfo()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(retry)
    assert (info.reason, info.domain) == (reason.name, "expertmesh")
    assert dict(info.metadata) == {"param": "n", "code": STATUS[reason].code}
    assert retry.retry_delay.ToMilliseconds() == 1500
    assert len(Status.FromString(grpc_encode.status_of(MeshError(reason, "what"))[2]).details) == 1
