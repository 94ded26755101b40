"""Answers by meaning through the whole mesh: for whom they are, for whom never, and that they were verified first."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from services.cache.authority import Authority
from services.cache.embed_queue import EmbedQueue
from services.cache.memory_store import MemoryStore
from services.experts.engine import Sink
from services.experts.rank import Rank
from services.experts.sim_engine import SimEngine
from services.gateway import json_key_store
from services.gateway.identity import Permission
from services.request import GenerateJob
from services.sim_tokenizer import decode, encode
from tests.mesh.local_mesh import KEYS, LocalMesh, Response, sim_config
from tests.unit.cache.words_embedder import SMALL_WORDS, WordsEmbedder

DELTA = 0.2
ENOUGH = 14
"""Verified outcomes before which no hit may be given at that bound."""


class AnswersByMeaning(SimEngine):
    """A simulated model that gives questions of one meaning one answer: small words and order count for nothing."""

    def submit(self, stream_id: int, job: GenerateJob, sink: Sink) -> None:
        words = set(re.findall(r"\w+", decode(job.prompt_ids).decode().lower())) - SMALL_WORDS
        meant = encode("asked: " + " ".join(sorted(words)))
        super().submit(stream_id, msgspec.structs.replace(job, prompt_ids=meant), sink)


class MeaningMesh(LocalMesh):
    """With an embedder that is a bag of words."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        embeds = EmbedQueue(WordsEmbedder)
        self.cache = Authority(MemoryStore(), self.config.cache, embeds=embeds)
        assert self.cache._semantic is not None
        self.semantic = self.cache._semantic
        self.semantic._chance = lambda: 0.5  # no audits among the hits

    async def add_engine(self) -> Rank:
        engine = AnswersByMeaning.from_config(self.config.experts)
        rank = Rank(engine, resolve_queue=self._queue, stuck_after_s=30.0)
        await rank.start()
        self.ranks.append(rank)
        return rank

    async def ask(
        self, text: str, *, tenant: str = "acme", system: str = "Be kind.", **more: Any
    ) -> Response:
        messages = [{"role": "system", "content": system}, {"role": "user", "content": text}]
        body = {"model": "sim", "messages": messages, "max_tokens": 12, "temperature": 0, **more}
        return await self.post("/v1/chat/completions", body, tenant=tenant)

    async def told(self, text: str, **how: Any) -> tuple[str, str, dict[str, Any]]:
        """x-cache, its kind, and the answer."""
        response = await self.ask(text, **how)
        answer = json.loads(await response.read())
        assert response.status == 200, answer
        return response.headers["x-cache"], response.headers.get("x-cache-kind", ""), answer

    async def until_learned(self) -> None:
        async with asyncio.timeout(10):
            while self.semantic._calls:
                await asyncio.sleep(0)

    async def teach(self, text: str, **how: Any) -> None:
        """The same question in ever other words, one after another; the model answers each."""
        for number in range(30):
            verdict, _, _ = await self.told("please " * (number + 1) + text, **how)
            await self.until_learned()
            assert verdict == "miss"
            if any(tenant.cutoff for tenant in self.semantic.stats().tenants):
                return
        raise AssertionError("it never became certain")


@asynccontextmanager
async def meaning_mesh(tmp_path: Path, **bounds: float) -> AsyncIterator[MeaningMesh]:
    keys_file = tmp_path / "keys.json"
    for tenant, key in KEYS.items():
        json_key_store.add(
            keys_file, key, key_id=tenant, tenant=tenant, semantic_cache=bounds.get(tenant, DELTA),
            permissions=(Permission.GENERATE, Permission.METRICS, Permission.OPERATE),
        )  # fmt: skip
    mesh = MeaningMesh(sim_config(keys_file))
    try:
        async with asyncio.timeout(60):
            await mesh.start(1)
            yield mesh
    finally:
        await mesh.stop()


def text_of(answer: dict[str, Any]) -> str:
    return answer["choices"][0]["message"]["content"]


def test_a_paraphrase_hits_after_verification_and_needs_no_engine(tmp_path: Path) -> None:
    async def main() -> None:
        async with meaning_mesh(tmp_path) as mesh:
            await mesh.teach("cancel my order")
            seen = mesh.semantic.stats()
            assert seen.found == 0, "nothing was given unverified"
            assert seen.explored == seen.judged_right == seen.tenants[0].verified >= ENOUGH
            _, _, known = await mesh.told("please cancel my order")
            engine = mesh.ranks[0].engine
            engine.wedge()
            verdict, kind, answer = await mesh.told("How do I cancel the order")
            assert (verdict, kind) == ("hit", "semantic")
            assert text_of(answer) == text_of(known)
            assert answer["usage"]["completion_tokens"] == 12
            assert (
                answer["usage"]["prompt_tokens_details"]["cached_tokens"] == answer["usage"]["prompt_tokens"]
            )
            streamed = await mesh.ask("How can I cancel an order", stream=True)
            events = [event async for event in streamed.events()]
            assert streamed.headers["x-cache-kind"] == "semantic"
            said = "".join(event["choices"][0]["delta"].get("content") or "" for event in events)
            assert said == text_of(known)
            async with asyncio.timeout(10):  # what was begun in vain is given back
                while mesh.gateways[0].mesh.queue.num_held or mesh.ranks[0].streams:
                    await asyncio.sleep(0.002)
            engine.unwedge()
            figures = json.loads((await mesh.get("/admin/cache"))[1])
            assert figures["gateway"]["semantic_hits"] == 2
            assert figures["cache"]["semantic"]["used"] == 2
            assert figures["cache"]["semantic"]["tenants"][0]["verified"] == seen.tenants[0].verified
            _, page = await mesh.get("/metrics")
            assert 'expertmesh_response_cache_hits_total{kind="semantic"} 2.0' in page

    asyncio.run(main())


def test_another_tenant_another_setting_another_system_prompt_never_hit(tmp_path: Path) -> None:
    async def main() -> None:
        async with meaning_mesh(tmp_path) as mesh:
            await mesh.teach("cancel my order")
            others: list[tuple[str, dict[str, Any]]] = [
                ("How do I cancel the order", {"tenant": "rival"}),
                ("How do I cancel the order", {"system": "Be rude."}),
                ("How do I cancel the order", {"max_tokens": 13}),
                ("How do I cancel the order", {"seed": 4}),
                ("How do I not cancel the order", {}),
                ("How do I cancel the order 7", {}),
                ('How do I cancel the order "blue"', {}),
            ]
            for text, how in others:
                verdict, _, answer = await mesh.told(text, **how)
                assert verdict == "miss", (text, how)
                assert len(text_of(answer)) > 0
                await mesh.until_learned()
            mesh.ranks[0].engine.wedge()
            assert (await mesh.told("How do I cancel the order"))[:2] == ("hit", "semantic"), (
                "the paired control"
            )

    asyncio.run(main())


def test_a_tenant_that_did_not_opt_in_is_never_asked_for(tmp_path: Path) -> None:
    async def main() -> None:
        async with meaning_mesh(tmp_path, acme=0.0) as mesh:
            for number in range(3):
                await mesh.told("please " * number + "cancel my order")
            assert mesh.semantic.stats().asked == 0
            await mesh.told("cancel my order", tenant="rival")
            assert mesh.semantic.stats().asked == 1

    asyncio.run(main())


def test_a_purge_ends_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with meaning_mesh(tmp_path) as mesh:
            await mesh.teach("cancel my order")
            purged = await mesh.json("/admin/cache/purge", {"tenant": "acme"})
            assert purged["confirmed"] is True
            assert mesh.semantic.stats().entries == 0
            assert (await mesh.told("How do I cancel the order"))[0] == "miss"

    asyncio.run(main())


def test_a_hit_that_comes_after_the_first_token_is_left_and_learned_from(tmp_path: Path) -> None:
    async def main() -> None:
        async with meaning_mesh(tmp_path) as mesh:
            await mesh.teach("cancel my order")
            late = asyncio.Event()
            embed = mesh.semantic._embeds.embed

            async def slowly(text: str) -> Any:
                vector = await embed(text)
                await late.wait()
                return vector

            mesh.semantic._embeds.embed = slowly  # type: ignore[method-assign]
            before = mesh.semantic.stats()
            response = await mesh.ask("How do I cancel the order", stream=True)
            assert response.headers["x-cache"] == "miss"
            late.set()
            events = [event async for event in response.events()]
            assert "".join(e["choices"][0]["delta"].get("content") or "" for e in events)
            await mesh.until_learned()
            after = mesh.semantic.stats()
            assert after.used == before.used
            assert after.judged_right == before.judged_right + 1
            assert after.tenants[0].audited == before.tenants[0].audited + 1

    asyncio.run(main())
