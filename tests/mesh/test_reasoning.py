"""A model that thinks before it answers: told apart on both wires, also where engine or gateway die in the middle."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict

from services.api.status import REASON_BY_CODE
from services.client.grpc_client import CallFailed, MeshClient, pb
from services.experts.sim_answers import expected_ids
from services.sim_tokenizer import decode
from services.text.sim_text import SimTokenizer
from tests.mesh.local_mesh import KEYS, LocalMesh, local_mesh
from tests.mesh.test_survival import FAULTS, busy_rank

TOKENS = 60
HI = [{"role": "user", "content": "Which city?"}]
ASK = {"model": "sim", "messages": HI, "max_tokens": TOKENS, "chat_template_kwargs": {"thinking": True}}


def wanted(num_tokens: int = TOKENS, messages: list[dict[str, Any]] = HI) -> tuple[str, str, int]:
    """(reasoning, answer, tokens of reasoning) that the simulated model gives."""
    prompt = SimTokenizer().render_chat(messages, kwargs={"thinking": True})
    said = decode(expected_ids(prompt, num_tokens)).decode()
    reasoning, tag, answer = said.partition("</think>")
    return reasoning, answer.lstrip(), len(reasoning + tag) // 4


def run(tmp_path: Path, body: Callable[[LocalMesh], Any], **parts: Any) -> None:
    async def main() -> None:
        async with local_mesh(tmp_path, **parts) as mesh:
            await body(mesh)

    asyncio.run(main())


def joined(events: list[dict[str, Any]], field: str) -> str:
    return "".join(c["delta"].get(field) or "" for event in events for c in event["choices"])


def test_whole_answers_of_both_wires_and_kept_ones(tmp_path: Path) -> None:
    async def body(mesh: LocalMesh) -> None:
        reasoning, answer, tokens = wanted()
        for cache in ("miss", "hit"):
            response = await mesh.post("/v1/chat/completions", ASK | {"temperature": 0})
            assert response.headers["x-cache"] == cache
            one = json.loads(await response.read())
            message = one["choices"][0]["message"]
            assert (message["reasoning_content"], message["content"]) == (reasoning, answer)
            assert one["usage"]["completion_tokens_details"] == {"reasoning_tokens": tokens}
        async with MeshClient(f"127.0.0.1:{mesh.gateways[0].grpc_port}", KEYS["acme"]) as client:
            fields = {
                "model": "sim", "messages": [{"role": "ROLE_USER", "content": "Which city?"}],
                "sampling": {"max_tokens": TOKENS}, "chat_template_kwargs_json": '{"thinking": true}',
            }  # fmt: skip
            request = ParseDict(fields, pb.ChatRequest())
            whole = await client.chat(request)
            assert (whole.choices[0].reasoning_content, whole.choices[0].content) == (reasoning, answer)
            assert whole.usage.reasoning_tokens == tokens
            events = [event async for event in client.stream_chat(request)]
            assert "".join(event.delta.reasoning_content for event in events) == reasoning
            assert "".join(event.delta.text for event in events) == answer

    run(tmp_path, body)


def test_cut_off_in_its_thoughts_there_is_no_answer(tmp_path: Path) -> None:
    async def body(mesh: LocalMesh) -> None:
        one = await mesh.json("/v1/chat/completions", ASK | {"max_tokens": 5})
        message = one["choices"][0]["message"]
        assert (message["reasoning_content"], message["content"]) == (wanted(5)[0], "")
        assert one["choices"][0]["finish_reason"] == "length"
        assert one["usage"]["completion_tokens_details"] == {"reasoning_tokens": 5}

    run(tmp_path, body)


@pytest.mark.parametrize("after", range(8, 28, 4))
@pytest.mark.parametrize("fault", FAULTS)
def test_an_engine_that_dies_before_in_or_behind_the_tag_changes_nothing(
    tmp_path: Path, fault: str, after: int
) -> None:
    async def body(mesh: LocalMesh) -> None:
        response = await mesh.post("/v1/chat/completions", ASK | {"stream": True})
        events: list[dict[str, Any]] = []
        async for event in response.events():
            events.append(event)
            if len(events) == after:
                await FAULTS[fault](busy_rank(mesh))
        assert "error" not in events[-1], events[-1]
        reasoning, answer, _ = wanted()
        assert (joined(events, "reasoning_content"), joined(events, "content")) == (reasoning, answer)

    run(tmp_path, body, experts={"stuck_after_s": 0.3})


@pytest.mark.parametrize("seen", [1, 6, 14, 24, 40])
def test_whoever_comes_back_gets_exactly_the_rest(tmp_path: Path, seen: int) -> None:
    async def body(mesh: LocalMesh) -> None:
        ask, headers = ASK | {"stream": True, "temperature": 0}, {"idempotency-key": "a-key"}
        events: list[dict[str, Any]] = []
        for upto in (seen, None):
            response = await mesh.post("/v1/chat/completions", ask, headers=headers)
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
        reasoning, answer, _ = wanted()
        assert (joined(events, "reasoning_content"), joined(events, "content")) == (reasoning, answer)

    run(tmp_path, body)


def test_an_answer_with_a_form_is_not_thought_about(tmp_path: Path) -> None:
    async def body(mesh: LocalMesh) -> None:
        schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
        one = await mesh.json("/v1/chat/completions", ASK | {"guided_json": schema})
        message = one["choices"][0]["message"]
        assert "reasoning_content" not in message
        assert isinstance(json.loads(message["content"])["a"], int)

    run(tmp_path, body)


def test_what_it_thought_may_be_sent_back(tmp_path: Path) -> None:
    async def body(mesh: LocalMesh) -> None:
        told = {"role": "assistant", "content": "Paris"}
        answers: list[str] = []
        for extra in ({}, {"reasoning_content": "I think"}, {"reasoning": "I think"}):
            messages = [*HI, told | extra, {"role": "user", "content": "Sure?"}]
            body = {"model": "sim", "messages": messages, "max_tokens": 8}
            one = await mesh.json("/v1/chat/completions", body)
            answers.append(one["choices"][0]["message"]["content"])
        assert len(set(answers)) == 1

    run(tmp_path, body)


WRONG: list[tuple[object, str]] = [
    ({"thinks": True}, "chat_template_kwargs.thinks"),
    ({"thinking": {"a": 1}}, "chat_template_kwargs.thinking"),
    ({"a b": True}, "chat_template_kwargs"),
    ({"thinking": "x" * 600}, "chat_template_kwargs.thinking"),
    ({"thinking": 2**80}, "chat_template_kwargs.thinking"),
    ({f"k{i}": True for i in range(17)}, "chat_template_kwargs"),
    ([1], "chat_template_kwargs"),
]


@pytest.mark.parametrize(("kwargs", "param"), WRONG, ids=str)
def test_wrong_words_for_the_template_are_refused_alike(tmp_path: Path, kwargs: object, param: str) -> None:
    async def body(mesh: LocalMesh) -> None:
        response = await mesh.post("/v1/chat/completions", ASK | {"chat_template_kwargs": kwargs})
        assert response.status == 400
        error = json.loads(await response.read())["error"]
        assert error["param"] == param
        async with MeshClient(f"127.0.0.1:{mesh.gateways[0].grpc_port}", KEYS["acme"]) as client:
            fields = {
                "model": "sim", "messages": [{"role": "ROLE_USER", "content": "x"}],
                "chat_template_kwargs_json": json.dumps(kwargs),
            }  # fmt: skip
            with pytest.raises(CallFailed) as caught:
                await client.chat(ParseDict(fields, pb.ChatRequest()))
            assert caught.value.reason == REASON_BY_CODE[error["code"]].name
            assert caught.value.param == param

    run(tmp_path, body)
