"""Chats with documents through a whole mesh: the model is given the passages that matter, the same on both wires, on
every gateway, kept, resumed and billed."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from services.client.grpc_client import CallFailed, MeshClient, pb
from services.gateway import json_key_store
from services.gateway.identity import Permission
from services.quota.allowance import Allowance
from tests.mesh.local_embeddings import embedding_mesh
from tests.mesh.local_mesh import KEYS, LocalMesh, local_mesh

QUESTION = "the cat sat on the mat"
FILLER = "x1 y2 z3 w4 q5 v6 k7 j8 "
DOCUMENTS = [
    {"text": FILLER * 20 + (QUESTION + " ") * 8 + FILLER * 20, "title": "Cats"},
    {"text": FILLER * 12},
]
ASK: dict[str, Any] = {
    "model": "sim", "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": QUESTION}],
    "max_tokens": 24, "temperature": 0, "documents": DOCUMENTS, "max_passages": 2,
}  # fmt: skip


def spans(header: str) -> list[tuple[int, int, int]]:
    return [(int(d), int(a), int(b)) for d, a, b in re.findall(r"(\d+):(\d+)-(\d+)", header)]


def composed(passages: list[tuple[int, int, int]]) -> list[dict[str, str]]:
    """The chat that a client would have to write itself to say the same."""
    parts = [
        f"[{n}]{' ' + DOCUMENTS[d]['title'] if 'title' in DOCUMENTS[d] else ''}\n{DOCUMENTS[d]['text'][a:b].strip()}"
        for n, (d, a, b) in enumerate(passages, 1)
    ]
    return [ASK["messages"][0], {"role": "user", "content": "\n\n".join([*parts, QUESTION])}]


def grpc_ask() -> pb.ChatRequest:
    return pb.ChatRequest(
        model="sim",
        messages=[
            pb.Message(role=pb.ROLE_SYSTEM, content="be brief"), pb.Message(role=pb.ROLE_USER, content=QUESTION)
        ],
        sampling=pb.Sampling(max_tokens=24, temperature=0),
        documents=[pb.Document(text=one["text"], title=one.get("title", "")) for one in DOCUMENTS],
        max_passages=2,
    )  # fmt: skip


async def streamed(mesh: LocalMesh, body: dict[str, Any], **options: Any) -> tuple[dict[str, str], str]:
    response = await mesh.post("/v1/chat/completions", body | {"stream": True}, **options)
    page = (await response.read()).decode()
    assert response.status == 200, page
    events = [json.loads(line[6:]) for line in page.splitlines() if line.startswith("data: {")]
    return response.headers, "".join(
        e["choices"][0]["delta"].get("content") or "" for e in events if e["choices"]
    )


def test_the_model_gets_the_passages_that_matter_and_no_more(tmp_path: Path) -> None:
    async def run() -> None:
        async with embedding_mesh(tmp_path) as (mesh, peer):
            response = await mesh.post("/v1/chat/completions", ASK)
            answer = json.loads(await response.read())
            found = spans(response.headers["x-passages"])
            where = DOCUMENTS[0]["text"].index(QUESTION)
            assert any(d == 0 and a < where + 8 * len(QUESTION) and b > where for d, a, b in found), found
            assert sum(b - a for _, a, b in found) < 0.5 * len(DOCUMENTS[0]["text"])
            number = len(peer.embedder.batches)
            plain = await mesh.json("/v1/chat/completions", ASK | {
                "messages": composed(found), "documents": None, "max_passages": None})  # fmt: skip
            text = answer["choices"][0]["message"]["content"]
            assert text == plain["choices"][0]["message"]["content"]
            assert answer["usage"] == plain["usage"] | {
                "prompt_tokens_details": answer["usage"]["prompt_tokens_details"]
            }
            assert len(peer.embedder.batches) == number, "a chat without documents embeds nothing"
            headers, said = await streamed(mesh, ASK)
            assert (said, headers["x-passages"], headers["x-cache"]) == (
                text, response.headers["x-passages"], "hit",
            )  # fmt: skip
            address = f"127.0.0.1:{mesh.gateways[0].grpc_port}"
            async with MeshClient(address, KEYS["acme"], deadline_s=60.0) as client:
                whole = await client.chat(grpc_ask())
                assert whole.choices[0].content == text
                assert [(p.document, p.start, p.end) for p in whole.passages] == found
                assert 0.5 < max(p.score for p in whole.passages) <= 1.0001
                events = [event async for event in client.stream_chat(grpc_ask())]
                assert [(p.document, p.start, p.end) for p in events[0].begin.passages] == found
                assert "".join(event.delta.text for event in events) == text
            titled = [DOCUMENTS[0] | {"title": "Dogs"}, DOCUMENTS[1]]
            for documents, verdict in (
                (DOCUMENTS[::-1], "hit"),
                (titled, "miss"),
            ):  # the same prompt, and another
                response = await mesh.post("/v1/chat/completions", ASK | {"documents": documents})
                await response.read()
                assert response.headers["x-cache"] == verdict
                swapped = [(1 - d, a, b) for d, a, b in found] if verdict == "hit" else found
                assert spans(response.headers["x-passages"]) == sorted(swapped)

    asyncio.run(run())


def test_few_segments_are_given_whole_and_nothing_is_embedded(tmp_path: Path) -> None:
    async def run() -> None:
        async with embedding_mesh(tmp_path) as (mesh, peer):
            short = ASK | {"documents": [{"text": "hello world"}, {"text": "你好世界", "title": "中文"}]}
            response = await mesh.post("/v1/chat/completions", short)
            await response.read()
            assert spans(response.headers["x-passages"]) == [(0, 0, 11), (1, 0, 4)]
            assert not peer.embedder.batches

    asyncio.run(run())


def test_kept_answers_are_the_same_on_another_gateway(tmp_path: Path) -> None:
    async def run() -> None:
        async with embedding_mesh(tmp_path, gateways=2) as (mesh, _):
            wishes = {"idempotency-key": "once", "cache-control": "no-store"}
            first, text = await streamed(mesh, ASK, headers=wishes)
            again, said = await streamed(mesh, ASK, headers=wishes, gateway=1)
            assert first["x-resumable"] == again["idempotent-replayed"] == "true"
            assert (said, again["x-passages"]) == (text, first["x-passages"])
            changed = ASK | {"documents": DOCUMENTS[:1], "max_passages": 1}
            response = await mesh.post("/v1/chat/completions", changed | {"stream": True}, headers=wishes)
            assert response.status == 422, "another prompt under the same key"

    asyncio.run(run())


def test_the_next_question_embeds_only_itself_until_a_purge(tmp_path: Path) -> None:
    async def run() -> None:
        async with embedding_mesh(tmp_path) as (mesh, peer):

            async def embedded(question: str, tenant: str = "acme", **more: Any) -> int:
                """How many texts were embedded to answer it."""
                before = sum(map(len, peer.embedder.batches))
                body = ASK | {"messages": [{"role": "user", "content": question}]} | more
                response = await mesh.post("/v1/chat/completions", body, tenant=tenant)
                assert response.status == 200, await response.read()
                await response.read()
                return sum(map(len, peer.embedder.batches)) - before

            every = await embedded("the cat?", user="ada")
            assert every > 10 and await embedded("the dog?", user="ada") == 1
            assert await embedded("the dog?", tenant="rival") == every, "nobody profits by another tenant's"
            scope = mesh.gateways[0].mesh.keys.person_scope("acme", "ada")
            memory = mesh.gateways[0].mesh.cache.vectors
            age = memory.age
            await mesh.cache.purge(scope)
            while memory.age == age:
                await asyncio.sleep(0.005)
            assert await embedded("the pig?", user="ada") == every and await embedded("the fox?") == 1

    asyncio.run(run())


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"documents": []}, "max_passages"),
    ({"documents": [{"text": " \n"}], "max_passages": None}, "documents.0.text"),
    ({"documents": [{"text": "a", "title": "t" * 257}]}, "documents.0.title"),
    ({"documents": [{"text": "a"}] * 65}, "documents"),
    ({"max_passages": 0}, "max_passages"),
    ({"max_passages": 17}, "max_passages"),
    ({"messages": [{"role": "assistant", "content": "x"}]}, "documents"),
    ({"messages": [{"role": "user", "content": ""}]}, "documents"),
    ({"documents": [{"text": FILLER * 2000}] * 3}, "documents"),
]


def test_what_makes_no_sense_is_refused_by_name(tmp_path: Path) -> None:
    async def run() -> None:
        async with embedding_mesh(tmp_path) as (mesh, peer):
            for change, param in REFUSED:
                body = {name: value for name, value in (ASK | change).items() if value is not None}
                response = await mesh.post("/v1/chat/completions", body)
                said = json.loads(await response.read())
                assert response.status == 400 and said["error"]["param"] == param, (change, said)
            for more in (
                {"documents": "text"},
                {"documents": [{"text": 5}]},
                {"documents": [{"text": "a", "x": 1}]},
            ):
                response = await mesh.post("/v1/chat/completions", ASK | more)
                assert response.status == 400, await response.read()
            assert not peer.embedder.batches
            request = grpc_ask()
            request.max_passages = 17
            address = f"127.0.0.1:{mesh.gateways[0].grpc_port}"
            async with MeshClient(address, KEYS["acme"], deadline_s=60.0) as client:
                with pytest.raises(CallFailed) as failed:
                    await client.chat(request)
            assert (failed.value.reason, failed.value.param) == ("INVALID_FIELD", "max_passages")
        (tmp_path / "none").mkdir()
        async with local_mesh(tmp_path / "none") as mesh:
            response = await mesh.post("/v1/chat/completions", ASK)
            said = json.loads(await response.read())["error"]
            assert (response.status, said["param"], said["code"]) == (400, "documents", "unsupported_field")

    asyncio.run(run())


def test_blocked_words_count_where_the_model_would_read_them(tmp_path: Path) -> None:
    async def run() -> None:
        words = {"blocked_words": ("swear",)}
        async with embedding_mesh(tmp_path, postprocess=words) as (mesh, _):
            unread = {"text": FILLER * 30 + "swear " + FILLER * 30}
            for documents, status in (
                ([{"text": QUESTION + " swear"}, {"text": FILLER * 30}], 400), ([unread, DOCUMENTS[0]], 200),
            ):  # fmt: skip
                response = await mesh.post(
                    "/v1/chat/completions", ASK | {"documents": documents, "max_passages": 1}
                )
                said = await response.read()
                assert response.status == status, said

    asyncio.run(run())


def test_reading_documents_is_on_the_keys_bill_and_ends_with_the_deadline(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    json_key_store.add(
        keys, "key-poor", key_id="poor", tenant="poor", bands=("standard",), permissions=(Permission.GENERATE,),
        allowance=Allowance(tokens_per_day=1_500),
    )  # fmt: skip

    async def run() -> None:
        async with embedding_mesh(tmp_path) as (mesh, peer):
            for status in (200, 429):
                wishes = {"cache-control": "no-store"}
                response = await mesh.post("/v1/chat/completions", ASK, tenant="key-poor", headers=wishes)
                assert response.status == status, await response.read()
                await response.read()
            read = sum(len(row) // 4 for row in peer.embedder.batches[0])
            assert 800 < read < 1_500
            plain = {"model": "sim", "prompt": QUESTION * 6, "max_tokens": 24}
            assert (await mesh.post("/v1/completions", plain, tenant="key-poor")).status == 200
            peer.embedder.gate.clear()
            late = await mesh.post("/v1/chat/completions", ASK, headers={"x-request-timeout-s": "0.2"})
            assert late.status == 504, await late.read()
            peer.embedder.gate.set()
            peer.deaths = 2
            seen = await mesh.post("/v1/chat/completions", ASK, headers=wishes)
            assert seen.status == 200, "nobody sees the service die"
            peer.deaths = 3
            away = await mesh.post("/v1/chat/completions", ASK, headers=wishes)
            assert away.status == 503 and b"away" in await away.read()

    asyncio.run(run())
