"""Several models in one mesh: each with its own tokenizer, engines and queue, coming and going while it runs.

The second model's engine is the simulated one with its ids folded into a small vocabulary, so that whoever decodes with
the wrong tokenizer, or sends to the wrong engines, says something else.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from services.clock import SystemClock
from services.experts.engine import EngineInfo, ModelCard, Sink, StreamError
from services.experts.rank import Rank
from services.experts.sim_answers import expected_ids
from services.experts.sim_engine import SimEngine
from services.gateway import json_key_store
from services.gateway.catalogue import Catalogue
from services.gateway.identity import Permission
from services.gateway.models_beside import ModelsBeside
from services.link.messages import Revisions
from services.request import GenerateJob, SamplingParams, TokenFrame, unpack_ids
from services.text.hf_tokenizer import HfTokenizer
from services.text.tokenizer import decode_all
from tests.mesh.local_mesh import LocalMesh, local_mesh, said
from tests.unit.text.small_tokenizers import CHATML, byte_level, save

SIZE, NAME = 251, "small:chat"
"""Ids of the second model; its name holds the separator of adapters, as names of some catalogues do."""
PATIENT = {"engine_silent_s": 600.0, "lease_ttl_s": 600.0}
"""The host may be busy with other things: nobody is dead because of that."""


def folded(token_id: int) -> int:
    return 2 + token_id % SIZE


class SmallEngine(SimEngine):
    """The simulated model in a vocabulary of SIZE ids."""

    def __init__(self, name: str = NAME) -> None:
        super().__init__(model=name)
        self.asked: list[str] = []

    async def start(self) -> EngineInfo:
        return msgspec.structs.replace(await super().start(), max_model_len=512)

    def submit(self, stream_id: int, job: GenerateJob, sink: Sink) -> None:
        self.asked.append(job.request_id)

        def fold(said: TokenFrame | StreamError) -> None:
            if isinstance(said, TokenFrame):
                said = msgspec.structs.replace(said, token_ids=tuple(map(folded, said.token_ids)))
            sink(said)

        super().submit(stream_id, job, fold)


async def add(mesh: LocalMesh, folder: Path, name: str = NAME, engine: SmallEngine | None = None) -> Rank:
    """An engine of the second model joins, with the card that a deployment would give it."""
    rank = Rank(
        engine or SmallEngine(name),
        resolve_queue=mesh._queue,
        stuck_after_s=600.0,
        card=lambda info: msgspec.msgpack.encode(ModelCard(info, str(folder))),
    )
    await rank.start()
    mesh.ranks.append(rank)
    return rank


def small(tmp_path: Path) -> tuple[Path, HfTokenizer]:
    folder = tmp_path / "small"
    folder.mkdir()
    save(folder, byte_level())
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": CHATML}))
    return folder, HfTokenizer.load(folder)


def said_small(tokenizer: HfTokenizer, prompt: bytes, num_tokens: int) -> str:
    ids = expected_ids(prompt, num_tokens, SamplingParams(num_tokens, temperature=0.0))
    return decode_all(tokenizer.decoder(), [folded(i) for i in unpack_ids(ids)])


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    while not await true():  # local_mesh ends the test
        await asyncio.sleep(0.01)


async def names(mesh: LocalMesh, tenant: str = "acme", gateway: int = 0) -> list[str]:
    listed = json.loads((await mesh.get("/v1/models", tenant=tenant, gateway=gateway))[1])
    return [entry["id"] for entry in listed["data"]]


def ask(model: str, prompt: str = "hello world", **more: Any) -> dict[str, Any]:
    return {"model": model, "prompt": prompt, "max_tokens": 12, "temperature": 0} | more


def test_two_models_answer_each_in_its_own_words(tmp_path: Path) -> None:

    async def run() -> None:
        folder, tokenizer = small(tmp_path)
        async with local_mesh(tmp_path, gateways=2, queue=PATIENT) as mesh:
            assert await names(mesh) == ["sim"]
            response = await mesh.post("/v1/completions", ask(NAME))
            assert response.status == 404, "nobody serves it yet"
            await add(mesh, folder)
            for gateway in (0, 1):
                await until(partial(_lists, mesh, ["sim", NAME], gateway))
                prompt = tokenizer.encode("hello world")
                answer = await mesh.json("/v1/completions", ask(NAME), gateway=gateway)
                assert answer["model"] == NAME
                assert answer["choices"][0]["text"] == said_small(tokenizer, prompt, 12)
                assert answer["usage"]["prompt_tokens"] == len(unpack_ids(prompt))
                answer = await mesh.json("/v1/completions", ask("sim"), gateway=gateway)
                assert answer["choices"][0]["text"] == said("hello world", 12, temperature=0.0)
                answer = await mesh.json(
                    "/generate", {"prompt": "hello world", "max_tokens": 12}, gateway=gateway
                )
                assert answer["response"] == said("hello world", 12), "who names no model gets the mesh's own"
            chat = {
                "model": NAME,
                "messages": [{"role": "user", "content": "hello"}],
                "max_tokens": 9,
                "temperature": 0,
            }
            shown = await mesh.json("/v1/chat/completions", chat)
            rendered = tokenizer.render_chat(chat["messages"])  # type: ignore[arg-type]
            assert shown["choices"][0]["message"]["content"] == said_small(tokenizer, rendered, 9)

    asyncio.run(run())


async def _lists(mesh: LocalMesh, wanted: list[str], gateway: int = 0) -> bool:
    return await names(mesh, gateway=gateway) == wanted


def test_each_has_its_own_context_and_cache(tmp_path: Path) -> None:

    async def run() -> None:
        folder, _ = small(tmp_path)
        async with local_mesh(tmp_path, queue=PATIENT) as mesh:
            await add(mesh, folder)
            await until(lambda: _lists(mesh, ["sim", NAME]))
            long = "hello world " * 200
            assert (await mesh.post("/v1/completions", ask("sim", long))).status == 200
            refused = await mesh.post("/v1/completions", ask(NAME, long))
            assert refused.status == 400 and b"context is 512" in await refused.read()
            verdicts: list[str] = []
            for model in ("sim", NAME, "sim", NAME):
                response = await mesh.post("/v1/completions", ask(model))
                verdicts.append(response.headers["x-cache"])
                await response.read()
            assert verdicts == ["miss", "miss", "hit", "hit"]

    asyncio.run(run())


def test_a_key_sees_and_uses_only_its_models(tmp_path: Path) -> None:

    async def run() -> None:
        folder, _ = small(tmp_path)
        json_key_store.add(
            tmp_path / "keys.json", "key-of-narrow", key_id="narrow", tenant="narrow", bands=("standard",),
            permissions=(Permission.GENERATE,), models=(NAME,),
        )  # fmt: skip
        async with local_mesh(tmp_path, queue=PATIENT) as mesh:
            await add(mesh, folder)
            await until(lambda: _lists(mesh, ["sim", NAME]))
            narrow = {"tenant": "key-of-narrow"}
            assert await names(mesh, **narrow) == [NAME]
            assert (await mesh.post("/v1/completions", ask(NAME), **narrow)).status == 200
            unknown = await mesh.post("/v1/completions", ask("nothing"), **narrow)
            theirs = await mesh.post("/v1/completions", ask("sim"), **narrow)
            assert theirs.status == unknown.status == 404
            assert (await theirs.read()).replace(b"sim", b"nothing") == await unknown.read()

    asyncio.run(run())


def test_a_stream_survives_its_engine_on_another_of_the_same_model(tmp_path: Path) -> None:
    """And never goes on with an engine of the other model, though those are idle."""

    async def run() -> None:
        folder, tokenizer = small(tmp_path)
        async with local_mesh(tmp_path, queue=PATIENT) as mesh:
            engines = [SmallEngine(), SmallEngine()]
            ranks = [await add(mesh, folder, engine=engine) for engine in engines]
            await until(lambda: _lists(mesh, ["sim", NAME]))
            response = await mesh.post("/v1/completions", ask(NAME, max_tokens=200, stream=True))
            text, killed = "", False
            async for event in response.events():
                text += event["choices"][0]["text"] if event["choices"] else ""
                if not killed and text:
                    killed = True
                    await ranks[0 if engines[0].asked else 1].stop()
            assert text == said_small(tokenizer, tokenizer.encode("hello world"), 200)

    asyncio.run(run())


def test_a_model_that_went_is_not_offered_any_more(tmp_path: Path) -> None:

    async def run() -> None:
        folder, _ = small(tmp_path)
        quick = {"rollout": {"look_every_s": 0.02, "forget_model_s": 0.1}}
        async with local_mesh(tmp_path, queue=quick, within_s=40.0) as mesh:
            rank = await add(mesh, folder)
            await until(lambda: _lists(mesh, ["sim", NAME]))
            await rank.drain(0.0)
            await rank.stop()
            await until(lambda: _lists(mesh, ["sim"]))
            assert (await mesh.post("/v1/completions", ask(NAME))).status == 404
            assert [view.model for view in mesh.queue.snapshot()] == ["sim"]
            await add(mesh, folder)
            await until(lambda: _lists(mesh, ["sim", NAME]))
            assert (await mesh.post("/v1/completions", ask(NAME))).status == 200

    asyncio.run(run())


def test_files_that_are_not_here_yet_are_waited_for(tmp_path: Path) -> None:

    async def run() -> None:
        folder, _ = small(tmp_path)
        away = folder.rename(tmp_path / "elsewhere")
        async with local_mesh(tmp_path, queue=PATIENT) as mesh:
            catalogue = mesh.gateways[0].mesh.models
            await add(mesh, folder)
            await until(lambda: _expected(catalogue.awaited))
            refused = await mesh.post("/v1/completions", ask(NAME))
            assert refused.status == 503 and "retry-after" in refused.headers
            answer = await mesh.post("/v1/completions", ask("sim"))
            assert answer.status == 200, "the first model is served meanwhile"
            away.rename(folder)
            await until(lambda: _lists(mesh, ["sim", NAME]))

    asyncio.run(run())


async def _expected(awaited: Any) -> bool:
    return bool(awaited.get(NAME))


def test_a_new_queue_and_a_new_gateway_know_them_again(tmp_path: Path) -> None:

    async def run() -> None:
        folder, _ = small(tmp_path)
        async with local_mesh(tmp_path, queue=PATIENT) as mesh:
            await add(mesh, folder)
            await until(lambda: _lists(mesh, ["sim", NAME]))
            await mesh.restart_queue()
            assert (await mesh.json("/v1/completions", ask(NAME)))["model"] == NAME
            assert {view.model for view in mesh.queue.snapshot()} == {"sim", NAME}

    asyncio.run(run())


def test_a_card_that_cannot_be_read_is_tried_again_and_harms_nobody() -> None:
    async def run() -> None:
        catalogue = Catalogue(SystemClock())
        beside = ModelsBeside(catalogue, "sim", lambda card: pytest.fail(f"{card} was no card"))
        try:
            beside.heard(Revisions(model="odd", version=1, shares=(("v1", 1.0),), card=b"\xff no card"))
            while not catalogue.awaited.get("odd"):
                await asyncio.sleep(0)
            assert "odd" in catalogue.awaited and "odd" not in catalogue
        finally:
            beside.close()

    asyncio.run(run())
