"""Who may leave, as a table: one row for each reason to stay, and a field that nobody thought of stays, too."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from services.api.openai import parse_chat
from services.api.responses import parse_responses
from services.config import LimitsConfig
from services.config_remote import RemoteConfig
from services.gateway.identity import Principal
from services.gateway.locality import (
    HONOURED,
    HONOURED_SAMPLING,
    Findings,
    Stay,
    to_send,
    why_stays,
)
from services.gateway.remote_gate import Gate, Visit
from services.request import Document, GuidedDecoding, InferenceRequest, SamplingParams
from services.telemetry.masking import names_somebody

GUEST = Principal("guest", "guest", ("standard",), frozenset(), may_leave=True)
PLAIN: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def request(headers: dict[str, str] | None = None, **fields: Any) -> InferenceRequest:
    return parse_chat(msgspec.json.encode(PLAIN | fields), headers or {}, LimitsConfig())


def changed(**fields: Any) -> InferenceRequest:
    return msgspec.structs.replace(request(), **fields)


def sampled(**fields: Any) -> InferenceRequest:
    return changed(sampling=msgspec.structs.replace(request().sampling, **fields))


LEAVES = {
    "plain": request(),
    "sampled": request(temperature=0.2, top_p=0.9, max_tokens=7, presence_penalty=1, frequency_penalty=-1, stop=["x"]),
    "streamed": request(stream=True, stream_options={"include_usage": True}),
    "for somebody": request(user="anna"),
    "in a band": request({"x-priority-band": "vip", "x-request-timeout-s": "9", "cache-control": "no-cache"}),
    "in parts": request(messages=[{"role": "user", "content": [{"type": "text", "text": "a"}]}]),
    "no tool": request(tool_choice="none"),
    "anywhere": request({"x-locality": "any"}),
    "turns": request(messages=[{"role": r, "content": "x"} for r in ("system", "user", "assistant", "user")]),
}  # fmt: skip


@pytest.mark.parametrize("name", LEAVES)
def test_what_may_leave(name: str) -> None:
    assert why_stays(GUEST, LEAVES[name], Findings()) is None


TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}
STAYS: list[tuple[Stay, InferenceRequest]] = [
    (Stay.ASKED, request({"x-locality": "local"})),
    (Stay.JOURNAL, request({"idempotency-key": "k"})),
    (Stay.JOURNAL, changed(last_event_id="x")),
    (Stay.KIND, changed(kind="completion")),
    (Stay.KIND, changed(kind="generate")),
    (Stay.KIND, parse_responses(b'{"model": "m", "input": "hi"}', {}, LimitsConfig())),
    (Stay.DOCUMENTS, changed(documents=(Document("text"),))),
    (Stay.CACHE, request({"cache-control": "no-store"})),
    (Stay.FIELD, request(n=2)),
    (Stay.FIELD, request(tools=[TOOL])),
    (Stay.FIELD, request(confidence=True)),
    (Stay.FIELD, changed(template_kwargs={"thinking": True})),
    (Stay.FIELD, changed(echo=True)),
    (Stay.FIELD, changed(prompts=("x",))),
    (Stay.SAMPLING, request(seed=1)),
    (Stay.SAMPLING, request(logprobs=True)),
    (Stay.SAMPLING, request(logit_bias={"5": 1})),
    (Stay.SAMPLING, request(response_format={"type": "json_object"})),
    (Stay.SAMPLING, sampled(top_k=4)),
    (Stay.SAMPLING, sampled(min_p=0.1)),
    (Stay.SAMPLING, sampled(stop_token_ids=(3,))),
    (Stay.SAMPLING, sampled(repetition_penalty=1.1)),
    (Stay.SAMPLING, sampled(min_tokens=3)),
    (Stay.SAMPLING, sampled(ignore_eos=True)),
    (Stay.SAMPLING, sampled(guided=GuidedDecoding("json_object"))),
    (Stay.MESSAGE, request(messages=[{"role": "user", "content": "hi", "name": "anna"}])),
    (Stay.MESSAGE, request(messages=[{"role": "developer", "content": "hi"}])),
    (Stay.MESSAGE, changed(messages=({"role": "tool", "content": "x", "tool_call_id": "1"},))),
    (Stay.MESSAGE, changed(messages=({"role": "assistant", "content": "x", "reasoning_content": "y"},))),
    (Stay.MESSAGE, changed(messages=({"role": "assistant", "content": None},))),
]  # fmt: skip


@pytest.mark.parametrize(("stay", "asked"), STAYS, ids=lambda value: value if isinstance(value, str) else "")
def test_what_stays(stay: Stay, asked: InferenceRequest) -> None:
    assert why_stays(GUEST, asked, Findings()) is stay


def test_whose_key_does_not_say_so_stays_whatever_is_asked() -> None:
    somebody = msgspec.structs.replace(GUEST, may_leave=False)
    assert {why_stays(somebody, asked, Findings()) for asked in LEAVES.values()} == {Stay.KEY}
    always = msgspec.structs.replace(GUEST, journal="always")
    assert why_stays(always, request(), Findings()) is Stay.JOURNAL


def test_what_was_found_keeps_a_request() -> None:
    assert why_stays(GUEST, request(), Findings(own_model=False)) is Stay.MODEL
    assert why_stays(GUEST, request(), Findings(words=True)) is Stay.WORDS
    assert why_stays(GUEST, request(), Findings(personal=True)) is Stay.PERSONAL


def test_every_field_is_known_or_keeps_the_request() -> None:
    """The lists name fields that exist; whatever is not on them is compared with its default."""
    assert set(InferenceRequest.__struct_fields__) >= HONOURED
    assert set(SamplingParams.__struct_fields__) >= HONOURED_SAMPLING
    assert set(InferenceRequest.__struct_fields__) - HONOURED == {
        "prompts", "n", "echo", "confidence", "max_passages"
    }  # fmt: skip
    for field in msgspec.structs.fields(SamplingParams):
        if field.name not in HONOURED_SAMPLING:
            asked = sampled(**{field.name: object()})
            assert why_stays(GUEST, asked, Findings()) is Stay.SAMPLING


def test_nothing_but_the_turns_and_how_to_sample_is_sent() -> None:
    asked = request(user="anna", temperature=0.2, stop=["x"], metadata={"a": "b"}, safety_identifier="anna")
    assert to_send(asked, asked.sampling, "there") == {
        "model": "there", "messages": [{"role": "user", "content": "hi"}], "max_tokens": asked.sampling.max_tokens,
        "temperature": 0.2, "top_p": 1.0, "stream": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    "text",
    ["call 13812345678", "１３８１２３４５６７８", "138 1234 5678 90", "13812\u200b345678", "a.b@c.org", "ａ@ｂ.org",
     "11010519491231002X", "tel13812345678x", "DE89 3704 0044 0532 0130 00", "(030) 1234-56789",
     "sk-abcdefghij0123456789"],
)  # fmt: skip
def test_identifiers_are_found_however_they_are_written(text: str) -> None:
    assert names_somebody(f"see {text} there")


@pytest.mark.parametrize(
    "text",
    ["hello", "in 2026 there were 12345 of 99", "2026-11-24 03:49:35", "a @ b", "x" * 200_000, "x@" * 50_000],
)
def test_what_is_no_identifier(text: str) -> None:
    assert not names_somebody(text)


@pytest.mark.parametrize(
    "values",
    [{"url": "http://api.example.com/v1", "model": "m"}, {"url": "https://a@b/v1", "model": "m"},
     {"url": "ftp://b", "model": "m"}, {"url": "https://b/v1?x=1", "model": "m"}, {"url": "https://b/v1"},
     {"model": "m"}],
)  # fmt: skip
def test_an_address_that_would_not_be_safe_is_refused(values: dict[str, str]) -> None:
    with pytest.raises(ValueError):
        RemoteConfig(**values)  # pyright: ignore[reportArgumentType]


def test_a_gate_counts_places_and_lets_one_find_out() -> None:
    gate = Gate(max_concurrent=2, pause_s=10.0)
    one, two = gate.enter(0.0), gate.enter(0.0)
    assert isinstance(one, Visit) and isinstance(two, Visit) and gate.enter(0.0) == "full"
    one.failed(1.0, fatal=True)
    one.leave(1.0)
    two.leave(1.0)
    assert gate.enter(10.9) == "paused"
    probe = gate.enter(11.1)
    assert isinstance(probe, Visit) and gate.enter(11.2) == "paused"
    probe.leave(11.3)  # its client left before anything was known: the next pause, not for ever
    assert gate.enter(11.4) == "paused"
    again = gate.enter(21.5)
    assert isinstance(again, Visit)
    again.answered(21.6)
    again.leave(22.0)
    assert isinstance(gate.enter(22.0), Visit)
    assert gate.num_visits == 1
