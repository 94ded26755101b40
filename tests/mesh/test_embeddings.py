"""`/v1/embeddings` and gRPC's Embed through a whole mesh: the same request, the same vectors, the same bill, the same
reason on every error. The model is a bag of token ids with a real tokenizer."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import openai
import pytest

from services.client.grpc_client import CallFailed, MeshClient, pb
from services.gateway import json_key_store
from services.gateway.identity import Permission
from services.quota.allowance import Allowance
from services.request import unpack_ids
from services.text.hf_encoder import HfEncoder
from tests.mesh.local_embeddings import NAME, LocalEmbeddings, embedding_mesh
from tests.mesh.local_mesh import KEYS, LocalMesh, local_mesh
from tests.unit.embedding.ids_embedder import DIMENSIONS, vector_of


class Rig:
    """A mesh with embeddings, asked over both wires."""

    def __init__(self, mesh: LocalMesh, peer: LocalEmbeddings, encoder: HfEncoder) -> None:
        self.mesh, self.peer, self.encoder = mesh, peer, encoder

    async def http(self, body: dict[str, Any], tenant: str = "acme") -> tuple[int, dict[str, Any]]:
        response = await self.mesh.post("/v1/embeddings", body, tenant=tenant)
        return response.status, json.loads(await response.read())

    async def grpc(self, request: pb.EmbedRequest, tenant: str = "acme") -> pb.EmbedResponse:
        address = f"127.0.0.1:{self.mesh.gateways[0].grpc_port}"
        async with MeshClient(address, KEYS.get(tenant, tenant), deadline_s=60.0) as client:
            return await client.embed(request)


@asynccontextmanager
async def rig(tmp_path: Path, **parts: Any) -> AsyncIterator[Rig]:
    async with embedding_mesh(tmp_path, **parts) as (mesh, peer):
        yield Rig(mesh, peer, HfEncoder.load(peer.folder))


def test_both_wires_give_the_same_vectors_and_the_same_bill(tmp_path: Path) -> None:
    async def run() -> None:
        async with rig(tmp_path) as it:
            texts = ["hello world", "你好", "the cat sat on the mat"]
            ids = [unpack_ids(row) for row in it.encoder.encode(texts)]
            wanted = [vector_of(row) for row in ids]
            status, plain = await it.http({"model": NAME, "input": texts})
            assert (status, plain["object"], plain["model"]) == (200, "list", NAME)
            assert [entry["index"] for entry in plain["data"]] == [0, 1, 2]
            assert np.allclose([entry["embedding"] for entry in plain["data"]], wanted, atol=1e-6)
            total = sum(map(len, ids))
            assert plain["usage"] == {"prompt_tokens": total, "total_tokens": total}
            for given in (texts, ids):
                status, packed = await it.http({"model": NAME, "input": given, "encoding_format": "base64"})
                rows = [np.frombuffer(base64.b64decode(e["embedding"]), "<f4") for e in packed["data"]]
                assert status == 200 and np.allclose(rows, wanted, atol=1e-6)
            for request in (
                pb.EmbedRequest(model=NAME, inputs=texts, dimensions=DIMENSIONS),
                pb.EmbedRequest(model=NAME, token_inputs=[pb.TokenIds(ids=row) for row in ids]),
            ):
                said = await it.grpc(request)
                assert np.allclose([list(e.values) for e in said.embeddings], wanted, atol=1e-6)
                assert (said.usage.prompt_tokens, said.model) == (total, NAME)
            for single in ("hello world", ids[0]):
                _, one = await it.http({"model": NAME, "input": single})
                assert (
                    np.allclose(one["data"][0]["embedding"], wanted[0], atol=1e-6) and len(one["data"]) == 1
                )

    asyncio.run(run())


LONG = "hello world, " * 60
REFUSED: list[tuple[dict[str, Any], pb.EmbedRequest, str, str]] = [
    ({"input": ""}, pb.EmbedRequest(inputs=[""]), "invalid_field", "input"),
    ({"input": []}, pb.EmbedRequest(), "invalid_field", "input"),
    ({"input": ["a", ""]}, pb.EmbedRequest(inputs=["a", ""]), "invalid_field", "input.1"),
    ({"input": ["a"] * 2049}, pb.EmbedRequest(inputs=["a"] * 2049), "invalid_field", "input"),
    ({"input": ["a", LONG]}, pb.EmbedRequest(inputs=["a", LONG]), "context_too_long", "input.1"),
    (
        {"input": [[5], [421]]},
        pb.EmbedRequest(token_inputs=[pb.TokenIds(ids=[5]), pb.TokenIds(ids=[421])]),
        "invalid_field",
        "input.1",
    ),
    (
        {"input": "a", "dimensions": 4},
        pb.EmbedRequest(inputs=["a"], dimensions=4),
        "unsupported_field",
        "dimensions",
    ),
    (
        {"input": "a", "dimensions": 0},
        pb.EmbedRequest(inputs=["a"], dimensions=0),
        "invalid_field",
        "dimensions",
    ),
    ({"input": "a", "model": "gpt"}, pb.EmbedRequest(inputs=["a"], model="gpt"), "model_not_found", "model"),
    ({"input": "a", "model": "sim"}, pb.EmbedRequest(inputs=["a"], model="sim"), "invalid_field", "model"),
    (
        {"input": "a", "priority_band": "gold"},
        pb.EmbedRequest(inputs=["a"], options=pb.Options(priority_band="gold")),
        "forbidden",
        "priority_band",
    ),
    ({"input": "a swear word"}, pb.EmbedRequest(inputs=["a swear word"]), "content_blocked", "input"),
]


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[dict[str, Any], CallFailed]]:
    """What both wires say to each of REFUSED; one mesh for all."""
    told: list[tuple[dict[str, Any], CallFailed]] = []

    async def run() -> None:
        words = {"blocked_words": ("swear",)}
        async with rig(tmp_path_factory.mktemp("refused"), postprocess=words) as it:
            for body, request, _, _ in REFUSED:
                if not request.model:
                    request.model = NAME
                _, http = await it.http({"model": NAME} | body)
                with pytest.raises(CallFailed) as failed:
                    await it.grpc(request)
                told.append((http, failed.value))
            assert not it.peer.embedder.batches, "none of them reached the model"

    asyncio.run(run())
    return told


@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_both_wires_refuse_for_the_same_reason(
    number: int, answers: list[tuple[dict[str, Any], CallFailed]]
) -> None:
    _, _, reason, param = REFUSED[number]
    http, failed = answers[number]
    code = {"context_too_long": "context_length_exceeded", "content_blocked": "content_filter"}.get(
        reason, reason
    )
    assert (http["error"]["code"], http["error"]["param"]) == (code, param), http
    assert (failed.reason.lower(), failed.param) == (reason, param), failed
    assert failed.message == http["error"]["message"]


def test_what_only_one_wire_can_say_is_refused_by_name(tmp_path: Path) -> None:
    async def run() -> None:
        async with rig(tmp_path) as it:
            for extra in ({"stream": True}, {"encoding_format": "int8"}, {"input": "a", "user": 5}):
                status, said = await it.http({"model": NAME, "input": "a"} | extra)
                assert status == 400, said
            with pytest.raises(CallFailed) as both:
                await it.grpc(pb.EmbedRequest(model=NAME, inputs=["a"], token_inputs=[pb.TokenIds(ids=[1])]))
            assert both.value.code is grpc.StatusCode.INVALID_ARGUMENT
            with pytest.raises(CallFailed) as kept:
                await it.grpc(
                    pb.EmbedRequest(model=NAME, inputs=["a"], options=pb.Options(idempotency_key="k"))
                )
            assert kept.value.reason == "UNSUPPORTED_FIELD"
            status, said = await it.http({"model": NAME, "input": "a"}, tenant="nobody")
            assert (status, said["error"]["code"]) == (401, "invalid_api_key")

    asyncio.run(run())


def test_it_is_on_the_list_and_generates_nothing(tmp_path: Path) -> None:
    async def run() -> None:
        async with rig(tmp_path) as it:
            listed = json.loads((await it.mesh.get("/v1/models"))[1])
            assert [entry["id"] for entry in listed["data"]] == ["sim", NAME]
            chat = {"model": NAME, "messages": [{"role": "user", "content": "hi"}]}
            response = await it.mesh.post("/v1/chat/completions", chat)
            assert response.status == 400 and b"/v1/embeddings" in await response.read()

    asyncio.run(run())


def test_rights_and_allowances_hold(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    json_key_store.add(
        keys, "key-narrow", key_id="narrow", tenant="narrow", bands=("standard",), models=("sim",),
        permissions=(Permission.GENERATE,),
    )  # fmt: skip
    json_key_store.add(
        keys, "key-poor", key_id="poor", tenant="poor", bands=("standard",), permissions=(Permission.GENERATE,),
        allowance=Allowance(tokens_per_minute=60),
    )  # fmt: skip

    async def run() -> None:
        async with rig(tmp_path) as it:
            status, _ = await it.http({"model": NAME, "input": "a"}, tenant="key-narrow")
            assert status == 404
            status, said = await it.http({"model": NAME, "input": ["hello world"] * 40}, tenant="key-poor")
            assert status == 400 and said["error"]["param"] == "input", "it would never get through"
            spent = []
            for _ in range(8):
                status, said = await it.http({"model": NAME, "input": "hello world, " * 4}, tenant="key-poor")
                spent.append(status)
            assert spent[0] == 200 and 429 in spent, spent

    asyncio.run(run())


def test_a_client_that_leaves_and_one_that_cannot_wait(tmp_path: Path) -> None:
    async def run() -> None:
        async with rig(tmp_path) as it:
            it.peer.embedder.gate.clear()
            first = asyncio.create_task(it.http({"model": NAME, "input": "first"}))
            while not it.peer.embedder.batches:
                await asyncio.sleep(0.005)
            left = await it.mesh.send_only("/v1/embeddings", {"model": NAME, "input": ["gone"] * 100})
            while not it.peer.service.waiting_tokens:
                await asyncio.sleep(0.005)
            left()
            while it.peer.service.waiting_tokens:
                await asyncio.sleep(0.005)
            headers = {"x-request-timeout-s": "0.05"}
            late = await it.mesh.post("/v1/embeddings", {"model": NAME, "input": "late"}, headers=headers)
            assert late.status == 504, await late.read()
            it.peer.embedder.gate.set()
            assert (await first)[0] == 200

    asyncio.run(run())


def test_nobody_sees_the_service_die_unless_it_dies_of_the_request(tmp_path: Path) -> None:
    async def run() -> None:
        async with rig(tmp_path) as it:
            it.peer.deaths = 2
            assert (await it.http({"model": NAME, "input": "hello"}))[0] == 200
            it.peer.deaths = 3
            response = await it.mesh.post("/v1/embeddings", {"model": NAME, "input": "hello"})
            said = json.loads(await response.read())
            assert response.status == 503 and "actor" not in said["error"]["message"], said
            assert response.headers["retry-after"] == "5"
            assert (await it.http({"model": NAME, "input": "hello"}))[0] == 200

    asyncio.run(run())


def test_openais_own_client_reads_them(tmp_path: Path) -> None:
    async def run() -> None:
        async with rig(tmp_path) as it:
            client = openai.AsyncOpenAI(
                base_url=f"http://127.0.0.1:{it.mesh.port()}/v1", api_key=KEYS["acme"], max_retries=0
            )
            texts = [f"text number {i}" for i in range(200)]
            wanted = [vector_of(unpack_ids(row)) for row in it.encoder.encode(texts)]
            for more in ({}, {"encoding_format": "float"}):  # it asks for base64 by itself
                found = await client.embeddings.create(model=NAME, input=texts, **more)  # type: ignore[arg-type]
                assert [entry.index for entry in found.data] == list(range(200))
                assert np.allclose([entry.embedding for entry in found.data], wanted, atol=1e-6)
            await client.close()

    asyncio.run(run())


def test_metrics_count_it_as_what_it_is(tmp_path: Path) -> None:
    async def run() -> None:
        async with rig(tmp_path) as it:
            await it.http({"model": NAME, "input": "hello"})
            await it.grpc(pb.EmbedRequest(model=NAME, inputs=["hello"]))
            page = (await it.mesh.get("/metrics"))[1]
            for protocol in ("http", "grpc"):
                labels = (
                    f'kind="embedding",model="{NAME}",outcome="completed",protocol="{protocol}",reason="none"'
                )
                assert f"expertmesh_requests_total{{{labels}}} 1.0" in page, page

    asyncio.run(run())


def test_without_a_model_it_says_so(tmp_path: Path) -> None:
    async def run() -> None:
        async with local_mesh(tmp_path) as mesh:
            response = await mesh.post("/v1/embeddings", {"model": "sim", "input": "a"})
            assert response.status == 400 and b"makes no embeddings" in await response.read()
            response = await mesh.post("/v1/embeddings", {"model": "text-embedding-3-small", "input": "a"})
            assert response.status == 404

    asyncio.run(run())


def test_what_is_too_long_is_not_decoded_for_the_word_filter(tmp_path: Path) -> None:
    async def run() -> None:
        async with rig(tmp_path, postprocess={"blocked_words": ("swear",)}) as it:
            model = it.mesh.gateways[0].mesh.embeddings
            assert model is not None
            (row,) = it.encoder.encode(["a swear word"])
            ids = list(unpack_ids(row))
            status, told = await it.http({"model": NAME, "input": ids})
            assert (status, told["error"]["code"]) == (400, "content_filter")
            longer = ids * (model.card.max_tokens + 1)
            status, told = await it.http({"model": NAME, "input": longer})
            assert (status, told["error"]["code"]) == (400, "context_length_exceeded")

    asyncio.run(run())


def test_much_is_read_for_the_word_filter_beside_the_event_loop(tmp_path: Path) -> None:
    """Half a million token ids are half a second: tokens of everybody else would stand still."""

    async def run() -> None:
        async with rig(tmp_path, postprocess={"blocked_words": ("swear",)}) as it:
            model = it.mesh.gateways[0].mesh.embeddings
            assert model is not None
            decode, by = model.text_of, list[bool]()

            def watched(ids: bytes) -> str:
                by.append(threading.current_thread() is threading.main_thread())
                return decode(ids)

            model.text_of = watched  # type: ignore[method-assign]
            clean, bad = (list(unpack_ids(row)) for row in it.encoder.encode(["a clean one", "a swear word"]))
            assert (await it.http({"model": NAME, "input": clean}))[0] == 200 and by == [True]
            by.clear()
            status, told = await it.http({"model": NAME, "input": [*[clean] * 200, bad]})
            assert (status, told["error"]["code"]) == (400, "content_filter"), told
            assert by == [False] * 201

    asyncio.run(run())


def test_the_deadline_runs_while_texts_are_tokenised(tmp_path: Path) -> None:
    async def run() -> None:
        async with rig(tmp_path) as it:
            mesh = it.mesh.gateways[0].mesh
            model = mesh.embeddings
            assert model is not None
            tokenise, longest_s = model.rows, mesh.config.limits.max_deadline_s

            async def slowly(request: Any) -> tuple[bytes, ...]:
                rows, now_s = await tokenise(request), mesh.clock.now_s
                mesh.clock.now_s = lambda: now_s() + longest_s + 1  # type: ignore[method-assign]
                return rows

            model.rows = slowly  # type: ignore[method-assign]
            status, told = await it.http({"model": NAME, "input": "a"})
            assert (status, told["error"]["code"]) == (504, "deadline_exceeded"), told
            assert not it.peer.embedder.batches

    asyncio.run(run())
