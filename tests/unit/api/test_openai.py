"""What clients send → what the mesh does, and every refusal by name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from services.api.openai import parse_chat, parse_completion, parse_generate
from services.config import LimitsConfig
from services.errors import RequestError
from services.outcome import Reason
from services.request import InferenceRequest, unpack_ids

LIMITS = LimitsConfig(max_body_bytes=100_000)
HELLO = [{"role": "user", "content": "hello"}]
TOOL: dict[str, Any] = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


def chat(headers: dict[str, str] | None = None, **fields: Any) -> InferenceRequest:
    body = {"model": "m", "messages": HELLO} | fields
    return parse_chat(json.dumps(body).encode(), headers or {}, LIMITS)


def completion(**fields: Any) -> InferenceRequest:
    return parse_completion(json.dumps({"model": "m", "prompt": "hi"} | fields).encode(), {}, LIMITS)


def refused(reason: Reason, param: str | None, call: Any, *args: Any, **fields: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        call(*args, **fields)
    assert (caught.value.reason, caught.value.param) == (reason, param), caught.value.message
    return caught.value


def test_a_small_chat() -> None:
    request = chat()
    assert request.kind == "chat"
    assert request.model == "m"
    assert not request.stream
    assert request.messages == ({"role": "user", "content": "hello"},)
    assert request.sampling.max_tokens == LIMITS.default_max_tokens
    assert not request.max_tokens_given
    assert request.n == 1
    assert request.cache == "default"
    assert request.deadline_s is None


def test_everything_a_chat_may_ask() -> None:
    request = chat(
        max_completion_tokens=7, temperature=0, top_p=0.5, n=2, stream=True, stop=["a", "b"], seed=-5,
        stream_options={"include_usage": True, "include_obfuscation": False}, presence_penalty=1,
        frequency_penalty=-2,
        logit_bias={"5": -100}, logprobs=True, top_logprobs=3, user="p1", top_k=-1, min_p=0.1, min_tokens=2,
        repetition_penalty=1.1, ignore_eos=True, stop_token_ids=[9], confidence=True, priority_band="vip",
        tools=[TOOL], tool_choice={"type": "function", "function": {"name": "add"}}, parallel_tool_calls=True,
        metadata={"a": "b"}, store=False, service_tier="auto", modalities=["text"], prompt_cache_key="k",
    )  # fmt: skip
    sampling = request.sampling
    assert (sampling.max_tokens, sampling.temperature, sampling.top_p, sampling.seed) == (7, 0.0, 0.5, -5)
    assert (sampling.stop, sampling.stop_token_ids, sampling.logit_bias) == (("a", "b"), (9,), {5: -100.0})
    assert (sampling.logprobs, sampling.top_k, sampling.min_p, sampling.min_tokens) == (3, 0, 0.1, 2)
    assert (sampling.presence_penalty, sampling.frequency_penalty, sampling.ignore_eos) == (1.0, -2.0, True)
    assert request.n == 2
    assert request.stream
    assert request.include_usage
    assert request.confidence
    assert request.band == "vip"
    assert request.person == "p1"
    assert request.max_tokens_given
    assert request.tools == (TOOL,)
    assert request.tool_choice == {"type": "function", "function": {"name": "add"}}


def test_every_role_keeps_what_templates_read() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    messages = [
        {"role": "system", "content": "s"},
        {"role": "developer", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "user", "content": "u", "name": "ann"},
        {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None, "annotations": []},
        {"role": "tool", "content": "3", "tool_call_id": "c1"},
    ]
    assert chat(messages=messages).messages == (
        {"role": "system", "content": "s"},
        {"role": "developer", "content": "a\nb"},
        {"role": "user", "content": "u", "name": "ann"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "3", "tool_call_id": "c1"},
    )


INVALID: list[tuple[dict[str, Any], str]] = [
    ({"model": ""}, "model"), ({"model": "x" * 257}, "model"), ({"model": 5}, "model"),
    ({"messages": []}, "messages"), ({"messages": "hi"}, "messages"), ({"messages": [{}]}, "messages.0.role"),
    ({"messages": [{"role": "user"}]}, "messages.0.content"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content"),
    ({"messages": [{"role": "user", "content": []}]}, "messages.0.content"),
    ({"messages": [{"role": "king", "content": ""}]}, "messages.0.role"),
    ({"messages": [{"role": "assistant"}]}, "messages.0.content"),
    ({"messages": [*HELLO, {"role": "tool", "content": ""}]}, "messages.1.tool_call_id"),
    ({"messages": [{"role": "user", "content": "", "name": "x" * 300}]}, "messages.0.name"),
    ({"messages": HELLO * 2049}, "messages"),
    ({"temperature": -0.1}, "temperature"), ({"temperature": 2.1}, "temperature"),
    ({"temperature": "1"}, "temperature"),
    ({"top_p": 0}, "top_p"), ({"top_p": 1.01}, "top_p"), ({"n": 0}, "n"), ({"n": 17}, "n"),
    ({"n": True}, "n"),
    ({"stop": ""}, "stop.0"), ({"stop": ["a"] * 17}, "stop"), ({"stop": "x" * 257}, "stop.0"),
    ({"stop": [1]}, "stop.0"),
    ({"seed": 2**63}, "seed"), ({"seed": 2**70}, "seed"), ({"seed": 1.0}, "seed"),
    ({"seed": -(2**63) - 1}, "seed"),
    ({"presence_penalty": 2.5}, "presence_penalty"), ({"frequency_penalty": -2.5}, "frequency_penalty"),
    ({"max_tokens": 0}, "max_tokens"), ({"max_tokens": -1}, "max_tokens"),
    ({"max_tokens": 2**40}, "max_tokens"),
    ({"max_completion_tokens": 0}, "max_completion_tokens"),
    ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens"),
    ({"logit_bias": {"a": 1}}, "logit_bias"), ({"logit_bias": {"1": 101}}, "logit_bias"),
    ({"logit_bias": {"-1": 1}}, "logit_bias"),
    ({"logit_bias": {str(i): 1 for i in range(1025)}}, "logit_bias"),
    ({"logprobs": 5}, "logprobs"), ({"top_logprobs": 2}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"), ({"top_logprobs": -1}, "top_logprobs"),
    ({"top_k": -2}, "top_k"), ({"min_p": 1.5}, "min_p"), ({"repetition_penalty": 0}, "repetition_penalty"),
    ({"min_tokens": 6, "max_tokens": 5}, "min_tokens"), ({"stop_token_ids": [-1]}, "stop_token_ids.0"),
    ({"stream_options": {"include_usage": True}}, "stream_options"), ({"user": "x" * 257}, "user"),
    ({"metadata": {"a": "x" * 513}}, "metadata"), ({"metadata": {str(i): "" for i in range(17)}}, "metadata"),
    ({"metadata": {"a": 1}}, "metadata.*"), ({"priority_band": "a b"}, "priority_band"),
    ({"tools": [TOOL, TOOL]}, "tools.1.function.name"), ({"tools": [TOOL] * 129}, "tools"),
    ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools.0.function.name"),
    ({"tools": [{"type": "function"}]}, "tools.0.function"),
    ({"tool_choice": "required"}, "tool_choice"), ({"tool_choice": "some"}, "tool_choice"),
    ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "x"}}},
    "tool_choice.function.name"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}},
    "response_format.json_schema.schema"),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "", "schema": {}}}},
    "response_format.json_schema.name"),
    ({"guided_regex": "a", "guided_choice": ["b"]}, "guided_choice"), ({"guided_regex": "("}, "guided_regex"),
    ({"guided_regex": "((a{1000}){1000}){1000}"}, "guided_regex"), ({"guided_choice": []}, "guided_choice"),
    ({"guided_json": "{"}, "guided_json"), ({"guided_grammar": ""}, "guided_grammar"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "param"), INVALID, ids=[f"{p}-{i}" for i, (_, p) in enumerate(INVALID)])
def test_out_of_range_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    refused(Reason.INVALID_FIELD, param, chat, **fields)


IMAGE = {"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}}
UNSUPPORTED: list[tuple[dict[str, Any], str]] = [
    ({"frobnicate": 1}, "frobnicate"), ({"audio": {}}, "audio"), ({"functions": []}, "functions"),
    ({"function_call": "auto"}, "function_call"), ({"prediction": {}}, "prediction"),
    ({"store": True}, "store"),
    ({"reasoning_effort": "low"}, "reasoning_effort"), ({"verbosity": "low"}, "verbosity"),
    ({"web_search_options": {}}, "web_search_options"), ({"modalities": ["text", "audio"]}, "modalities"),
    ({"service_tier": "scale"}, "service_tier"), ({"best_of": 1}, "best_of"),
    ({"cache_salt": "x"}, "cache_salt"),
    ({"messages": [{"role": "user", "content": [IMAGE]}]}, "messages.0.content.0.type"),
    ({"messages": [{"role": "user", "content": "", "x": 1}]}, "messages.0.x"),
    ({"messages": [{"role": "assistant", "content": "", "audio": {"id": "a"}}]}, "messages.0.audio"),
    ({"tools": [{"type": "custom", "function": {"name": "a"}}]}, "tools.0.type"),
    ({"tools": [TOOL], "parallel_tool_calls": False}, "parallel_tool_calls"),
    ({"tools": [TOOL], "response_format": {"type": "json_object"}}, "tools"),
    ({"response_format": {"type": "grammar"}}, "response_format.type"),
    ({"stream": True, "stream_options": {"continuous_usage_stats": True}},
    "stream_options.continuous_usage_stats"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "param"), UNSUPPORTED, ids=[f"{p}-{i}" for i, (_, p) in enumerate(UNSUPPORTED)]
)
def test_unsupported_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    refused(Reason.UNSUPPORTED_FIELD, param, chat, **fields)


@pytest.mark.parametrize("strict", [True, False, None])
def test_functions_as_openais_sdk_makes_them(strict: bool | None) -> None:
    """`pydantic_function_tool`, LangChain and the agents' SDKs say `strict` with every function."""
    tool = {"type": "function", "function": {**TOOL["function"], "strict": strict}}
    assert chat(tools=[tool]).tools == (TOOL,), "templates do not see it"


@pytest.mark.parametrize("choice", ["required", "none", {"type": "function", "function": {"name": "add"}}])
def test_one_call_is_all_that_a_forced_choice_makes(choice: object) -> None:
    assert chat(tools=[TOOL], tool_choice=choice, parallel_tool_calls=False).tools == (TOOL,)


def test_null_means_not_given() -> None:
    names = (
        "temperature",
        "stop",
        "tools",
        "functions",
        "logit_bias",
        "seed",
        "response_format",
        "n",
        "stream",
    )
    assert chat(**dict.fromkeys(names)) == chat()


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"nope", b"\xef\xbb\xbf{}", b'{"model": NaN}', b'{"model": "\\ud800"}', b'{"model": "a",}',
        b'{"model": "m", "messages": []} x', b'{"model": "m", "messages": []}{}',
        b'{"model": "\xff"}', b'{"model": "\x00"}', b"{'model': 1}",
    ],
)  # fmt: skip
@pytest.mark.parametrize("padding", [0, 40_000])
def test_what_is_not_json(body: bytes, padding: int) -> None:
    refused(Reason.INVALID_JSON, None, parse_chat, b" " * padding + body, {}, LIMITS)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "the body is empty"), (b" \n", "the body is empty"),
        (b'{"model": "\\ud800"}', "surrogate"), (b'{"model": NaN}', "column 11"), (b'{"model":', "line 1 column"),
    ],
)  # fmt: skip
def test_what_is_not_json_is_told_where_and_why(body: bytes, said: str) -> None:
    assert said in refused(Reason.INVALID_JSON, None, parse_chat, body, {}, LIMITS).message


def test_a_type_that_is_not_supported_is_called_by_its_name() -> None:
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}]
    param = "messages.0.content.0.type"
    error = refused(Reason.UNSUPPORTED_FIELD, param, chat, messages=image)
    assert error.message == f"{param} 'image_url' is not supported by this server"
    error = refused(Reason.UNSUPPORTED_FIELD, "response_format.type", chat, response_format={"type": "xml"})
    assert error.message == "response_format.type 'xml' is not supported by this server"


@pytest.mark.parametrize("value", [b"[" * 100_000, b'{"a":' * 20_000])
def test_deep_nesting(value: bytes) -> None:
    generous = LimitsConfig()
    for body in (value, b'{"model": ' + value, b'{"tools": ' + value, b'{"guided_json": ' + value):
        with pytest.raises(RequestError):
            parse_chat(body, {}, generous)
    nested: Any = {"type": "object"}
    for _ in range(40):
        nested = {"type": "object", "properties": {"a": nested}}
    refused(Reason.INVALID_FIELD, "guided_json", chat, guided_json=nested)


def test_the_body_has_a_bound() -> None:
    refused(Reason.BODY_TOO_LARGE, None, parse_chat, b" " * 100_001, {}, LIMITS)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "strin"}, {"type": ["string", 5]}, {"$ref": "http://example.com/x"},
        {"$ref": "#/$defs/none"},
        {"$ref": 5}, {"pattern": "(("}, {"pattern": "(a{999}){999}"}, {"pattern": 5}, {"minLength": -1},
        {"maxItems": 10**9}, {"maxItems": True}, {"enum": []}, {"enum": list(range(1001))}, {"anyOf": []},
        {"minLength": 5, "maxLength": 2}, {"minimum": 2, "maximum": 1}, {"minimum": "x"}, {"maximum": 10**30},
        {"multipleOf": 0}, {"required": "x"}, {"required": [5]}, {"type": []}, {"minimum": True},
        {"anyOf": {}}, {"properties": []}, {"properties": {"a": 5}}, {"items": 7}, {"not": "x"},
        {"patternProperties": {"((": {}}},
        {"properties": {"p": {"type": "object", "properties": {"q": {"type": "x"}}}}},
        {"anyOf": [{"const": i} for i in range(2001)]}, {"description": "x" * 70_000},
    ],
)  # fmt: skip
def test_bad_schemas(schema: dict[str, Any]) -> None:
    refused(Reason.INVALID_FIELD, "guided_json", chat, guided_json=schema)
    tool = {"type": "function", "function": {"name": "a", "parameters": schema}}
    refused(Reason.INVALID_FIELD, "tools.0.function.parameters", chat, tools=[tool])


def test_good_schemas_become_grammars() -> None:
    schema = {
        "type": "object",
        "properties": {"type": {"$ref": "#/$defs/t~1u"}},
        "$defs": {"t/u": {"type": "string"}},
    }
    named = {"name": "answer", "schema": schema, "strict": True}
    guided = chat(response_format={"type": "json_schema", "json_schema": named}).sampling.guided
    assert guided is not None
    assert guided.kind == "json_schema"
    assert json.loads(guided.spec) == schema
    assert chat(guided_json=json.dumps(schema)).sampling.guided == guided
    for fields, kind in (
        ({"response_format": {"type": "json_object"}}, "json_object"),
        ({"guided_regex": r"[a-z]{1,3}\d+(x|y)?"}, "regex"),
        ({"guided_choice": ["a.b", "c"]}, "regex"),
        ({"guided_grammar": 'root ::= "a"'}, "grammar"),
    ):
        guided = chat(**fields).sampling.guided
        assert guided is not None
        assert guided.kind == kind
    assert chat(response_format={"type": "text"}).sampling.guided is None


def test_completion_prompts() -> None:
    assert completion().prompts == ("hi",)
    assert completion(prompt=["a", "b"], n=2).num_choices == 4
    assert [unpack_ids(p) for p in completion(prompt=[[1, 2], [3]]).prompts if isinstance(p, bytes)] == [
        [1, 2],
        [3],
    ]
    (packed,) = completion(prompt=[1, 2]).prompts
    assert isinstance(packed, bytes)
    assert unpack_ids(packed) == [1, 2]
    assert not completion(echo=False).echo
    assert completion(logprobs=0).sampling.logprobs == 0
    assert completion(best_of=2, n=2).n == 2


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": ""}, "prompt"), ({"prompt": []}, "prompt"), ({"prompt": ["a", 1]}, "prompt"),
        ({"prompt": ["a", ""]}, "prompt.1"), ({"prompt": [[]]}, "prompt.0"), ({"prompt": [-1]}, "prompt"),
        ({"prompt": [2**32]}, "prompt"), ({"prompt": [[1], [2**40]]}, "prompt.1"), ({"prompt": 5}, "prompt"),
        ({"prompt": [1.5]}, "prompt.0"), ({"prompt": [None]}, "prompt.0"),
        ({"prompt": ["a"] * 129}, "prompt"),
        ({"prompt": ["a"] * 100, "n": 2}, "n"), ({"logprobs": 21}, "logprobs"),
        ({"logprobs": -1}, "logprobs"),
        ({"logprobs": True}, "logprobs"), ({"max_tokens": 0}, "max_tokens"),
    ],
)  # fmt: skip
def test_completion_refusals(fields: dict[str, Any], param: str) -> None:
    refused(Reason.INVALID_FIELD, param, completion, **fields)


@pytest.mark.parametrize("fields", [{"suffix": "x"}, {"best_of": 3}, {"echo": True}, {"messages": []}])
def test_completion_unsupported(fields: dict[str, Any]) -> None:
    refused(Reason.UNSUPPORTED_FIELD, next(iter(fields)), completion, **fields)


def test_generate() -> None:
    request = parse_generate(b'{"prompt": "hi"}', {"x-priority-band": "vip"}, LIMITS)
    assert (request.kind, request.prompts, request.sampling.max_tokens) == ("generate", ("hi",), 512)
    assert request.band == "vip"
    assert request.model == ""
    refused(Reason.UNSUPPORTED_FIELD, "n", parse_generate, b'{"prompt": "a", "n": 2}', {}, LIMITS)
    refused(Reason.INVALID_FIELD, "prompt", parse_generate, b"{}", {}, LIMITS)


def test_headers_are_wishes() -> None:
    headers = {"x-priority-band": "batch", "x-request-timeout-s": "2.5"}
    request = chat(headers)
    assert (request.band, request.deadline_s) == ("batch", 2.5)
    assert chat({"x-request-deadline-ms": "1500", "x-request-timeout-s": "9"}).deadline_s == 1.5
    assert chat({"x-priority-band": "batch"}, priority_band="vip").band == "vip"
    assert chat(service_tier="flex").band == "batch"
    assert chat(service_tier="priority").band == "vip"


@pytest.mark.parametrize(
    ("value", "wish"),
    [("no-cache", "no-cache"), ("Max-Age=0", "no-cache"), ("no-cache, no-store", "no-store"),
    ("sampled", "sampled"),
     ("private", "default"), ("", "default")],
)  # fmt: skip
def test_cache_control(value: str, wish: str) -> None:
    assert chat({"cache-control": value}).cache == wish


@pytest.mark.parametrize(
    ("name", "value"),
    [("x-request-timeout-s", "0"), ("x-request-timeout-s", "-1"), ("x-request-timeout-s", "nan"),
     ("x-request-timeout-s", "1e9"), ("x-request-timeout-s", "1e-4"), ("x-request-timeout-s", "99999"),
     ("x-request-deadline-ms", ""),
     ("x-priority-band", "a b")],
)  # fmt: skip
def test_bad_headers(name: str, value: str) -> None:
    refused(Reason.INVALID_FIELD, name, chat, {name: value})


def test_an_answer_has_a_name_and_a_place_to_go_on() -> None:
    for name in ('"k-1"', "k-1"):
        assert chat({"idempotency-key": name}).idempotency_key == "k-1"
    assert chat({"last-event-id": "r/3-1a"}, stream=True).last_event_id == "r/3-1a"
    refused(Reason.INVALID_FIELD, "last-event-id", chat, {"last-event-id": "r/3-1a"})
    for wrong in ("3", "r/3", "r/3-xyz", "r/3-1a;", "/end", "r/o", "r/3-1a,", "r/" + "1-1," * 2000):
        refused(Reason.INVALID_FIELD, "last-event-id", chat, {"last-event-id": wrong}, stream=True)
    for wrong in ("a b", "é", '""', "x" * 256):
        refused(Reason.INVALID_FIELD, "idempotency-key", chat, {"idempotency-key": wrong})
