"""OpenAI's own SDK talks the Responses API to a running mesh: whole and streamed, tools, forms, thoughts, faults."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseFunctionToolCall,
    ResponseInputItemParam,
    ResponseOutputMessage,
    ResponseReasoningItem,
    ResponseStreamEvent,
)
from pydantic import BaseModel

from services.experts.sim_answers import expected_ids
from services.experts.sim_calls import written_call
from services.sim_tokenizer import decode
from services.text.sim_text import SimTokenizer
from tests.mesh.local_mesh import KEYS, LocalMesh, local_mesh
from tests.mesh.test_survival import FAULTS, busy_rank

TOOLS: list[Any] = [
    {
        "type": "function",
        "name": "weather",
        "description": "Rain or not",
        "parameters": {
            "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"],
            "additionalProperties": False,
        },
        "strict": True,
    }
]  # fmt: skip


def run(
    tmp_path: Path, body: Callable[[LocalMesh, openai.AsyncOpenAI], Awaitable[None]], **parts: Any
) -> None:
    async def main() -> None:
        async with local_mesh(tmp_path, **parts) as mesh:
            url = f"http://127.0.0.1:{mesh.port()}/v1"
            async with openai.AsyncOpenAI(api_key=KEYS["acme"], base_url=url, max_retries=0) as client:
                await body(mesh, client)

    asyncio.run(main())


def says(messages: list[dict[str, Any]], num_tokens: int, **kwargs: Any) -> str:
    """What the simulated model answers to that chat."""
    prompt = SimTokenizer().render_chat(messages, kwargs=kwargs or None)
    return decode(expected_ids(prompt, num_tokens)).decode()


def shown(response: Response) -> dict[str, Any]:
    """Without what differs between two answers to the same."""
    told = json.loads(response.model_dump_json())
    for item in told["output"]:
        item["id"] = item["call_id"] = ""
    return {name: told[name] for name in ("status", "output", "incomplete_details", "instructions", "tools")}


async def collected(stream: Any) -> list[ResponseStreamEvent]:
    events = [event async for event in stream]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    return events


def test_whole_and_streamed_are_the_same_and_what_the_model_said(tmp_path: Path) -> None:
    async def body(_: LocalMesh, client: openai.AsyncOpenAI) -> None:
        wanted = says([{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello"}], 20)
        asked: dict[str, Any] = {
            "model": "sim", "input": "Hello", "instructions": "Be kind.", "max_output_tokens": 20, "store": False,
        }  # fmt: skip
        one = await client.responses.create(**asked)
        assert one.output_text == wanted
        assert (one.status, one.object, one.store) == (
            "incomplete",
            "response",
            None,
        ) or one.status == "incomplete"
        assert one.incomplete_details is not None and one.incomplete_details.reason == "max_output_tokens"
        assert one.usage is not None
        assert (one.usage.output_tokens, one.usage.output_tokens_details.reasoning_tokens) == (20, 0)
        events = await collected(await client.responses.create(**asked, stream=True))
        assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == wanted
        assert events[0].type == "response.created" and events[1].type == "response.in_progress"
        last = events[-1]
        assert last.type == "response.incomplete"
        assert shown(last.response) == shown(one)
        async with client.responses.stream(**{k: v for k, v in asked.items() if k != "store"}) as stream:
            parts = [event.delta async for event in stream if event.type == "response.output_text.delta"]
        assert "".join(parts) == wanted

    run(tmp_path, body)


def test_a_loop_with_a_function(tmp_path: Path) -> None:
    async def body(_: LocalMesh, client: openai.AsyncOpenAI) -> None:
        history: list[Any] = [{"role": "user", "content": "Rain? <|sim:call=deepseek:weather|>"}]
        one = await client.responses.create(model="sim", input=history, tools=TOOLS, max_output_tokens=200)
        message, call = one.output
        assert isinstance(message, ResponseOutputMessage) and isinstance(call, ResponseFunctionToolCall)
        assert one.status == "completed"
        prompt = SimTokenizer().render_chat(
            [{"role": "user", "content": history[0]["content"]}],
            [
                {
                    "type": "function",
                    "function": {k: v for k, v in TOOLS[0].items() if k not in ("type", "strict")},
                }
            ],
        )
        written = decode(expected_ids(prompt, 200)).decode().rstrip(" ")
        assert one.output_text + written_call("deepseek", call.name, call.arguments) == written
        items: list[ResponseInputItemParam] = [item.to_dict() for item in one.output]  # type: ignore[misc]
        history += [*items, {"type": "function_call_output", "call_id": call.call_id, "output": "Rain"}]
        history.append({"role": "user", "content": "Sure?"})
        again = await client.responses.create(model="sim", input=history, max_output_tokens=9)
        assert again.output_text
        events = await collected(
            await client.responses.create(
                model="sim", input=history[:1], tools=TOOLS, max_output_tokens=200, stream=True,
                tool_choice="required",
            )
        )  # fmt: skip
        arguments = [e.delta for e in events if e.type == "response.function_call_arguments.delta"]
        assert len(arguments) > 3, "as it is written"
        last = events[-1]
        assert isinstance(last, ResponseCompletedEvent)
        (forced,) = last.response.output
        assert isinstance(forced, ResponseFunctionToolCall)
        assert (forced.name, forced.arguments) == ("weather", "".join(arguments))
        assert isinstance(json.loads(forced.arguments)["city"], str)

    run(tmp_path, body)


def test_thoughts_are_an_item_of_their_own_and_may_be_sent_back(tmp_path: Path) -> None:
    async def body(_: LocalMesh, client: openai.AsyncOpenAI) -> None:
        asked: list[Any] = [{"role": "user", "content": "Which city?"}]
        extra = {"chat_template_kwargs": {"thinking": True}}
        thought, answer = says(asked, 60, thinking=True).split("</think>")
        one = await client.responses.create(model="sim", input=asked, max_output_tokens=60, extra_body=extra)
        reasoning, message = one.output
        assert isinstance(reasoning, ResponseReasoningItem) and isinstance(message, ResponseOutputMessage)
        assert reasoning.content is not None and reasoning.content[0].text == thought
        assert one.output_text == answer.lstrip()
        assert one.usage is not None and one.usage.output_tokens_details.reasoning_tokens > 0
        history: list[Any] = [
            *asked,
            *(item.to_dict() for item in one.output),
            {"role": "user", "content": "Sure?"},
        ]
        again = await client.responses.create(model="sim", input=history, max_output_tokens=9)
        assert again.output_text

    run(tmp_path, body)


class City(BaseModel):
    name: str
    people: int


def test_a_form_is_followed_also_one_that_the_sdk_made_of_a_model(tmp_path: Path) -> None:
    async def body(_: LocalMesh, client: openai.AsyncOpenAI) -> None:
        form: Any = {"type": "json_schema", "name": "n", "schema": City.model_json_schema()}
        one = await client.responses.create(model="sim", input="x", text={"format": form})
        told = City.model_validate_json(one.output_text)
        assert one.status == "completed"
        parsed = await client.responses.parse(model="sim", input="x", text_format=City)
        assert isinstance(parsed.output_parsed, City)
        assert told.name and parsed.output_parsed.name

    run(tmp_path, body)


@pytest.mark.parametrize("fault", ["kill", "wedge"])
def test_an_engine_that_dies_changes_nothing(tmp_path: Path, fault: str) -> None:
    async def body(mesh: LocalMesh, client: openai.AsyncOpenAI) -> None:
        stream = await client.responses.create(model="sim", input="Hi", max_output_tokens=60, stream=True)
        events: list[ResponseStreamEvent] = []
        async for event in stream:
            events.append(event)
            if len(events) == 20:
                await FAULTS[fault](busy_rank(mesh))
        told = "".join(e.delta for e in events if e.type == "response.output_text.delta")
        assert told == says([{"role": "user", "content": "Hi"}], 60)
        assert [event.sequence_number for event in events] == list(range(len(events)))

    run(tmp_path, body, experts={"stuck_after_s": 0.3})


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"previous_response_id": "resp_1"}, "previous_response_id"),
    ({"store": True}, "store"),
    ({"input": "x" * 40_000}, "input"),
    ({"max_output_tokens": 1_000_000}, "max_output_tokens"),
]


def test_refusals_name_the_fields_of_this_body(tmp_path: Path) -> None:
    async def body(mesh: LocalMesh, client: openai.AsyncOpenAI) -> None:
        for fields, param in REFUSED:
            for stream in (False, True):
                asked: dict[str, Any] = {"model": "sim", "input": "Hi", "stream": stream} | fields
                with pytest.raises(openai.BadRequestError) as caught:
                    await client.responses.create(**asked)
                assert caught.value.param == param, fields
                assert "messages" not in caught.value.message and "max_tokens" not in caught.value.message
        with pytest.raises(openai.NotFoundError):
            await client.responses.create(model="nobody", input="x")
        assert mesh.gateways[0].mesh.queue.num_held == 0

    run(tmp_path, body)


def test_kept_repeated_and_shared_with_chats(tmp_path: Path) -> None:
    async def body(mesh: LocalMesh, client: openai.AsyncOpenAI) -> None:
        asked = {"model": "sim", "max_output_tokens": 12, "temperature": 0, "input": "Hello"}
        first = await mesh.post("/v1/responses", asked)
        text = json.loads(await first.read())["output"][0]["content"][0]["text"]
        assert first.headers["x-cache"] == "miss"
        chat = {
            "model": "sim",
            "max_tokens": 12,
            "temperature": 0,
            "messages": [{"role": "user", "content": "Hello"}],
        }
        kept = await mesh.post("/v1/chat/completions", chat)
        assert kept.headers["x-cache"] == "hit"
        assert json.loads(await kept.read())["choices"][0]["message"]["content"] == text
        for stream in (False, True):
            ids: set[str] = set()
            for replayed in (False, True):
                headers = {"idempotency-key": f"key-{stream}"}
                again = await mesh.post("/v1/responses", asked | {"stream": stream}, headers=headers)
                assert again.status == 200
                assert ("idempotent-replayed" in again.headers) == replayed
                if stream:
                    last = [event async for event in again.events()][-1]["response"]
                else:
                    last = json.loads(await again.read())
                assert last["output"][0]["content"][0]["text"] == text
                ids.add(last["id"])
            assert len(ids) == 1

    run(tmp_path, body)
