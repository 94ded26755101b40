"""LoRA adapters through a whole mesh, HTTP and gRPC: which one answers, for whom, on which engine.

1. `model:adapter` answers as the model with that adapter does, and says so; streams and gRPC alike.
2. The response cache never gives one adapter's answer for another's, nor an older version's.
3. An adapter that is missing, broken, of another base or another tenant's is refused by name, before any engine.
4. Requests of one adapter go to the engine that holds it, while there is room.
5. An answer that moves to another engine goes on with the same version of its adapter.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from services.client.grpc_client import CallFailed, MeshClient, pb
from services.experts import adapter_files
from services.experts.adapters import AdapterRef
from services.experts.sim_answers import expected_ids
from services.experts.sim_engine import SimEngine
from services.gateway import json_key_store
from services.request import SamplingParams
from services.sim_tokenizer import decode, encode
from tests.adapter_maker import make_adapter
from tests.mesh.local_mesh import KEYS, LocalMesh, local_mesh

ASK = {"model": "sim:french", "prompt": "salut", "max_tokens": 5, "temperature": 0}


def said_with(path: Path, prompt: str, num_tokens: int) -> str:
    """What the simulated model answers with the adapter that lies there now."""
    ref = AdapterRef(path.name, adapter_files.revision_of(path))
    params = SamplingParams(num_tokens, temperature=0.0)
    return decode(expected_ids(encode(prompt), num_tokens, params, adapter=str(ref))).decode()


@asynccontextmanager
async def mesh_with(tmp_path: Path, **parts: Any) -> AsyncIterator[tuple[LocalMesh, Path]]:
    folder = tmp_path / "adapters"
    make_adapter(folder, "french", "sim", seed=1)
    make_adapter(folder, "legal", "sim", seed=2)
    experts = {"adapters": str(folder)} | parts.pop("experts", {})
    async with local_mesh(tmp_path, experts=experts, **parts) as mesh:
        yield mesh, folder


async def text_of(mesh: LocalMesh, **changes: Any) -> str:
    return (await mesh.json("/v1/completions", ASK | changes))["choices"][0]["text"]


def engines(mesh: LocalMesh) -> list[SimEngine]:
    return [rank.engine for rank in mesh.ranks if isinstance(rank.engine, SimEngine)]


async def refusal(mesh: LocalMesh, model: str, tenant: str = "acme") -> str:
    response = await mesh.post("/v1/completions", ASK | {"model": model}, tenant=tenant)
    body = await response.read()
    assert response.status == 404, body
    error = json.loads(body)["error"]
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    return error["message"]


def test_each_adapter_answers_for_itself(tmp_path: Path) -> None:
    async def run() -> None:
        async with mesh_with(tmp_path) as (mesh, folder):
            plain = await text_of(mesh, model="sim")
            answers = {name: said_with(folder / name, "salut", 5) for name in ("french", "legal")}
            assert len({plain, *answers.values()}) == 3
            for _ in range(2):  # the second time from the response cache
                for name, answer in answers.items():
                    assert await text_of(mesh, model=f"sim:{name}") == answer
            assert await text_of(mesh, model="sim") == plain

            body = await mesh.json("/v1/completions", ASK)
            assert body["model"] == "sim:french"
            stream = await mesh.post("/v1/completions", ASK | {"stream": True})
            events = [event async for event in stream.events()]
            assert {event["model"] for event in events} == {"sim:french"}
            assert "".join(e["choices"][0]["text"] for e in events if e["choices"]) == answers["french"]

            address = f"127.0.0.1:{mesh.gateways[0].grpc_port}"
            async with MeshClient(address, KEYS["acme"]) as client:
                sampling = pb.Sampling(max_tokens=5, temperature=0)
                prompts = [pb.Prompt(text="salut")]
                reply = await client.text(
                    pb.TextRequest(model="sim:legal", prompts=prompts, sampling=sampling)
                )
                assert reply.choices[0].text == answers["legal"]
                assert await client.models() == ["sim", "sim:french", "sim:legal"]
                with pytest.raises(CallFailed, match="does not exist"):
                    await client.text(pb.TextRequest(model="sim:x", prompts=prompts, sampling=sampling))

    asyncio.run(run())


def test_a_new_version_is_another_adapter(tmp_path: Path) -> None:
    async def run() -> None:
        async with mesh_with(tmp_path) as (mesh, folder):
            old = await text_of(mesh)
            make_adapter(folder, "french", "sim", seed=7)
            mesh.gateways[0].mesh.model.adapters._seen.clear()  # type: ignore[union-attr]  # no waiting for a second
            new = await text_of(mesh)
            assert new == said_with(folder / "french", "salut", 5) != old

    asyncio.run(run())


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("nobody", "does not exist"),
        ("../keys", "does not exist"),
        ("other", "was made for the base 'llama'"),
        ("wide", "its rank is 64, and max_adapter_rank is 16"),
        ("cut", "is damaged"),
        ("hollow", "adapter_model.safetensors is missing"),
        ("garbled", "cannot be read"),
        ("dora", "use_dora"),
        ("prompt", "PROMPT_TUNING"),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(tmp_path: Path, name: str, why: str) -> None:
    async def run() -> None:
        async with mesh_with(tmp_path, engines=1) as (mesh, folder):
            make_adapter(folder, "other", "llama")
            make_adapter(folder, "wide", "sim", r=64)
            make_adapter(folder, "dora", "sim", use_dora=True)
            make_adapter(folder, "prompt", "sim", peft_type="PROMPT_TUNING")
            weights = make_adapter(folder, "cut", "sim") / adapter_files.WEIGHTS
            weights.write_bytes(weights.read_bytes()[:-3])
            (make_adapter(folder, "hollow", "sim") / adapter_files.WEIGHTS).unlink()
            (make_adapter(folder, "garbled", "sim") / adapter_files.CONFIG).write_text("{")
            assert why in await refusal(mesh, f"sim:{name}")
            assert not engines(mesh)[0].adapters.loads  # type: ignore[union-attr]
            data = json.loads((await mesh.get("/v1/models"))[1])["data"]
            assert [model["id"] for model in data] == ["sim", "sim:french", "sim:legal"]

    asyncio.run(run())


def test_tenants_see_their_own(tmp_path: Path) -> None:
    async def run() -> None:
        async with mesh_with(tmp_path, engines=1) as (mesh, folder):
            (folder / "legal" / adapter_files.TENANTS).write_text('["acme"]')
            assert await text_of(mesh, model="sim:legal") == said_with(folder / "legal", "salut", 5)
            hidden = await refusal(mesh, "sim:legal", tenant="rival")
            assert hidden == (await refusal(mesh, "sim:legax", tenant="rival")).replace("legax", "legal")
            data = json.loads((await mesh.get("/v1/models", tenant="rival"))[1])["data"]
            assert [model["id"] for model in data] == ["sim", "sim:french"]
            assert (await mesh.get("/v1/models/sim:legal", tenant="rival"))[0] == 404
            assert (await mesh.get("/v1/models/sim:legal"))[0] == 200

            node = mesh.gateways[0]
            for models, allowed in {
                ("sim",): (True, False),
                ("sim:french",): (False, True),
                ("sim", "sim:*"): (True, True),
            }.items():
                key = "-".join(models)
                json_key_store.add(
                    node._credentials._path,
                    key,
                    key_id=key,
                    tenant="narrow",
                    bands=("standard",),
                    models=models,
                )
                node.mesh.identity = json_key_store.identity(node._credentials._path)
                for model, may in zip(("sim", "sim:french"), allowed, strict=True):
                    status = (await mesh.post("/v1/completions", ASK | {"model": model}, tenant=key)).status
                    assert status == (200 if may else 404), (models, model)

    asyncio.run(run())


def test_an_adapters_requests_meet_the_engine_that_holds_it(tmp_path: Path) -> None:
    async def run() -> None:
        async with mesh_with(tmp_path, engines=3, cache={"enabled": False}) as (mesh, folder):
            for name in ("one", "two", "three", "four"):
                make_adapter(folder, name, "sim", seed=len(name))
            for turn in range(5):
                for name in ("one", "two", "three", "four"):
                    await text_of(mesh, model=f"sim:{name}", prompt=f"question {turn} " * (turn * 40 + 1))
            loads = [sum(engine.adapters.loads.values()) for engine in engines(mesh) if engine.adapters]
            assert sum(loads) == 4  # 20 requests, each adapter loaded once

    asyncio.run(run())


def test_least_recently_used_adapters_leave_an_engine(tmp_path: Path) -> None:
    async def run() -> None:
        parts = {"engines": 1, "cache": {"enabled": False}, "experts": {"max_kept_adapters": 1}}
        async with mesh_with(tmp_path, **parts) as (mesh, folder):
            for name in ("french", "legal", "french"):
                assert await text_of(mesh, model=f"sim:{name}") == said_with(folder / name, "salut", 5)
            (engine,) = engines(mesh)
            assert engine.adapters is not None and len(engine.adapters.residents.held) == 1
            assert sorted(engine.adapters.loads.values()) == [1, 2]

    asyncio.run(run())


def test_an_answer_moves_with_its_adapter(tmp_path: Path) -> None:
    async def run() -> None:
        async with mesh_with(tmp_path, engines=2, experts={"sim_step_s": 0.01}) as (mesh, folder):
            stream = await mesh.post("/v1/completions", ASK | {"stream": True, "max_tokens": 60})
            text, moved = "", False
            async for event in stream.events():
                text += event["choices"][0]["text"] if event["choices"] else ""
                if len(text) > 40 and not moved:
                    moved = True
                    next(engine for engine in engines(mesh) if engine.num_streams).crash()
            assert moved and text == said_with(folder / "french", "salut", 60)

    asyncio.run(run())
