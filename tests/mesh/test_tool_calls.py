"""Tool calls in every format that models write, forced ones too: on both wires, streamed, kept, resumed, and where the
engine dies in the middle of a call."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict

from services.client.grpc_client import MeshClient, pb
from services.experts.sim_answers import expected_ids
from services.experts.sim_calls import written_call
from services.request import SamplingParams
from services.sim_tokenizer import decode
from services.text.sim_text import SimTokenizer
from services.text.tool_choice import forced_grammar
from tests.mesh.local_mesh import KEYS, LocalMesh, local_mesh
from tests.mesh.test_survival import FAULTS, busy_rank

FORMS = ("hermes", "deepseek", "deepseek_v3", "mistral", "mistral_v3", "llama")
TOKENS = 300
PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string", "minLength": 60}, "days": {"type": "array", "minItems": 3}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": PARAMETERS}}
    for name in ("weather", "clock")
]
CHOICES: dict[str, Any] = {
    "required": "required",
    "named": {"type": "function", "function": {"name": "weather"}},
}


def ask(form: str, **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"Rain? <|sim:call={form}:weather|>"}]
    return {"model": "sim", "messages": messages, "max_tokens": TOKENS, "tools": TOOLS} | fields


def said(body: dict[str, Any]) -> str:
    """What the simulated model writes in answer to that request."""
    kwargs = body.get("chat_template_kwargs")
    prompt = SimTokenizer().render_chat(body["messages"], body.get("tools", ()), kwargs=kwargs)
    guided = forced_grammar(body.get("tools", ()), body.get("tool_choice", "auto"))
    sampling = SamplingParams(max_tokens=body["max_tokens"], guided=guided)
    return decode(expected_ids(prompt, body["max_tokens"], sampling)).decode()


def run(tmp_path: Path, body: Callable[[LocalMesh], Any], **parts: Any) -> None:
    async def main() -> None:
        async with local_mesh(tmp_path, **parts) as mesh:
            await body(mesh)

    asyncio.run(main())


def heard(form: str) -> dict[str, str]:
    """The gateway's settings: nothing for formats with marks."""
    return {"tool_format": "llama"} if form == "llama" else {}


def joined(events: list[dict[str, Any]], field: str = "content") -> str:
    return "".join(c["delta"].get(field) or "" for event in events for c in event["choices"])


def pieces(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one for event in events for c in event["choices"] for one in c["delta"].get("tool_calls") or ()]


def call_of(events: list[dict[str, Any]]) -> tuple[str, str]:
    """The only call of a stream, put together as OpenAI's SDKs do."""
    parts = pieces(events)
    assert {one["index"] for one in parts} == {0}
    assert [("id" in one, "name" in one["function"]) for one in parts] == (
        [(True, True)] + [(False, False)] * (len(parts) - 1)
    )
    return parts[0]["function"]["name"], "".join(one["function"]["arguments"] for one in parts)


def whole(form: str, content: str | None, name: str, arguments: str) -> str:
    """What a model writes of which a client is told that."""
    json.loads(arguments)
    return (content or "") + written_call(form, name, arguments)


async def broken_after(
    mesh: LocalMesh, body: dict[str, Any], fault: str, num_tokens: int
) -> list[dict[str, Any]]:
    """The events of a stream whose engine breaks when it has made so many tokens, shown or not."""
    before = {id(rank): rank.engine.sample_load().tokens_total for rank in mesh.ranks}

    async def strike() -> None:
        while True:
            rank = busy_rank(mesh)
            if rank.streams and rank.engine.sample_load().tokens_total - before[id(rank)] >= num_tokens:
                await FAULTS[fault](rank)
                return
            await asyncio.sleep(0.001)

    striking = asyncio.create_task(strike())
    response = await mesh.post("/v1/chat/completions", body | {"stream": True})
    events = [event async for event in response.events()]
    assert striking.done(), "the answer was over before"
    assert "error" not in events[-1], events[-1]
    return events


@pytest.mark.parametrize("form", FORMS)
def test_each_format_on_both_wires_streamed_and_kept(tmp_path: Path, form: str) -> None:
    async def body(mesh: LocalMesh) -> None:
        request = ask(form, temperature=0)
        written = said(request).rstrip(" ")
        for cache in ("miss", "hit"):
            response = await mesh.post("/v1/chat/completions", request)
            assert response.headers["x-cache"] == cache
            (choice,) = json.loads(await response.read())["choices"]
            message = choice["message"]
            assert choice["finish_reason"] == "tool_calls"
            (call,) = message["tool_calls"]
            assert whole(form, message["content"], **call["function"]) == written
        for headers in ({"cache-control": "no-cache"}, {}):
            response = await mesh.post("/v1/chat/completions", request | {"stream": True}, headers=headers)
            events = [event async for event in response.events()]
            assert whole(form, joined(events), *call_of(events)) == written
            assert events[-1]["choices"][0]["finish_reason"] == "tool_calls"
        async with MeshClient(f"127.0.0.1:{mesh.gateways[0].grpc_port}", KEYS["acme"]) as client:
            tools = [
                {"name": name, "parameters_json": json.dumps(PARAMETERS)} for name in ("weather", "clock")
            ]
            fields = {
                "model": "sim", "tools": tools, "sampling": {"max_tokens": TOKENS, "temperature": 0},
                "messages": [{"role": "ROLE_USER", "content": request["messages"][0]["content"]}],
            }  # fmt: skip
            (one,) = (await client.chat(ParseDict(fields, pb.ChatRequest()))).choices
            (told,) = one.tool_calls
            assert whole(form, one.content, told.name, told.arguments) == written
            assert one.finish_reason == pb.FINISH_REASON_TOOL_CALLS

    run(tmp_path, body, gateway=heard(form))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("fault", "after"), [("kill", 8), ("kill", 21), ("crash", 14), ("drain", 25)])
def test_an_engine_that_dies_within_a_call_changes_nothing(
    tmp_path: Path, form: str, fault: str, after: int
) -> None:
    async def body(mesh: LocalMesh) -> None:
        request = ask(form)
        events = await broken_after(mesh, request, fault, after)
        assert whole(form, joined(events), *call_of(events)) == said(request).rstrip(" ")

    run(tmp_path, body, gateway=heard(form), experts={"stuck_after_s": 0.3, "sim_step_s": 0.01})


@pytest.mark.parametrize("form", ["deepseek", "mistral"])
def test_a_call_behind_thoughts(tmp_path: Path, form: str) -> None:
    async def body(mesh: LocalMesh) -> None:
        request = ask(form, chat_template_kwargs={"thinking": True})
        thought, _, answer = said(request).partition("</think>")
        for fault_after in (6, 30):
            events = await broken_after(mesh, request, "kill", fault_after)
            assert joined(events, "reasoning_content") == thought
            assert whole(form, joined(events), *call_of(events)) == answer.strip(" ")
            await mesh.add_engine()

    run(tmp_path, body, experts={"sim_step_s": 0.01})


def test_other_formats_than_the_one_that_is_set_are_text(tmp_path: Path) -> None:
    async def body(mesh: LocalMesh) -> None:
        for form in ("deepseek", "llama"):
            (choice,) = (await mesh.json("/v1/chat/completions", ask(form)))["choices"]
            assert "tool_calls" not in choice["message"]
            assert choice["message"]["content"] == said(ask(form))
            assert choice["finish_reason"] == "stop"

    run(tmp_path, body, gateway={"tool_format": "mistral"})


@pytest.mark.parametrize("without", [{"tools": None}, {"tool_choice": "none"}], ids=str)
def test_without_tools_a_call_is_text(tmp_path: Path, without: dict[str, Any]) -> None:
    async def body(mesh: LocalMesh) -> None:
        request = {name: value for name, value in (ask("deepseek") | without).items() if value is not None}
        (choice,) = (await mesh.json("/v1/chat/completions", request))["choices"]
        assert choice["message"]["content"] == said(request)
        assert choice["finish_reason"] == "stop"

    run(tmp_path, body)


def forced(choice: str, **fields: Any) -> tuple[dict[str, Any], str, str]:
    """(request, name, arguments) of a call that is forced."""
    request = ask("hermes", tool_choice=CHOICES[choice]) | fields
    text = said(request)
    if choice == "named":
        return request, "weather", text
    told = json.loads(text)
    arguments = text[text.index('"arguments":') + len('"arguments":') :].rstrip(" ")[:-1]
    assert json.loads(arguments) == told["arguments"]
    return request, told["name"], arguments


@pytest.mark.parametrize("choice", CHOICES)
def test_a_forced_call_comes_in_pieces_and_is_the_same_whole_and_kept(tmp_path: Path, choice: str) -> None:
    async def body(mesh: LocalMesh) -> None:
        request, name, arguments = forced(choice, temperature=0)
        response = await mesh.post("/v1/chat/completions", request | {"stream": True})
        events = [event async for event in response.events()]
        assert joined(events) == ""
        assert call_of(events) == (name, arguments)
        assert len(pieces(events)) > 10, "as it is written, not at the end"
        for cache in ("hit", "bypass"):
            headers = {} if cache == "hit" else {"cache-control": "no-store"}
            again = await mesh.post("/v1/chat/completions", request, headers=headers)
            assert again.headers["x-cache"] == cache
            (one,) = json.loads(await again.read())["choices"]
            (call,) = one["message"]["tool_calls"]
            assert call["function"] == {"name": name, "arguments": arguments}
            assert not one["message"]["content"]
            assert one["finish_reason"] == "tool_calls"

    run(tmp_path, body)


@pytest.mark.parametrize("choice", CHOICES)
def test_a_forced_call_that_is_cut_off_has_half_its_arguments(tmp_path: Path, choice: str) -> None:
    async def body(mesh: LocalMesh) -> None:
        request, name, arguments = forced(choice)
        (one,) = (await mesh.json("/v1/chat/completions", request | {"max_tokens": 14}))["choices"]
        (call,) = one["message"]["tool_calls"]
        assert call["function"]["name"] == name
        assert arguments.startswith(call["function"]["arguments"])
        assert 0 < len(call["function"]["arguments"]) < len(arguments)
        assert one["finish_reason"] == "length"

    run(tmp_path, body)


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize(("fault", "after"), [("kill", 2), ("kill", 8), ("kill", 15), ("crash", 9), ("wedge", 9),
                                              ("drain", 10)])  # fmt: skip
def test_an_engine_that_dies_within_a_forced_call_changes_nothing(
    tmp_path: Path, choice: str, fault: str, after: int
) -> None:
    async def body(mesh: LocalMesh) -> None:
        request, name, arguments = forced(choice)
        events = await broken_after(mesh, request, fault, after)
        assert call_of(events) == (name, arguments)

    run(tmp_path, body, experts={"stuck_after_s": 0.3, "sim_step_s": 0.01})


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("seen", [1, 4, 9, 14])
def test_whoever_comes_back_gets_exactly_the_rest_of_a_forced_call(
    tmp_path: Path, choice: str, seen: int
) -> None:
    async def body(mesh: LocalMesh) -> None:
        request, name, arguments = forced(choice, temperature=0, stream=True)
        headers, events = {"idempotency-key": "a-key"}, list[dict[str, Any]]()
        for upto in (seen, None):
            response = await mesh.post("/v1/chat/completions", request, headers=headers)
            assert response.status == 200, await response.read()
            count = 0
            async for event_id, data in response.identified():
                if data == "[DONE]":
                    break
                headers["last-event-id"] = event_id
                events.append(json.loads(data))
                count += 1
                if count == upto:
                    break
            response.hang_up()
        assert call_of(events) == (name, arguments)

    run(tmp_path, body)
