"""The look-up runs beside the queue: what a request waits for, and what it must not begin."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from services.cache.authority import Authority
from services.cache.key import CacheKey
from services.cache.memory_store import MemoryStore
from services.cache.store import Found
from services.gateway import json_key_store
from tests.mesh.local_mesh import KEYS, LocalMesh, sim_config

BODY: dict[str, Any] = {"model": "sim", "prompt": "All ask this", "max_tokens": 5, "temperature": 0}


class Slow(MemoryStore):
    """What it found is told when `let_go` says so."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[Callable[[], None]] | None = None

    def look(self, key: CacheKey, told: Callable[[Found], None]) -> None:
        if self.held is None:
            super().look(key, told)
        else:
            self.held.append(lambda: super(Slow, self).look(key, told))

    def let_go(self) -> None:
        held, self.held = self.held, None
        for each in held or ():
            each()


class SlowMesh(LocalMesh):
    def __init__(self, folder: Path, **parts: Any) -> None:
        for tenant, key in KEYS.items():
            json_key_store.add(folder / "keys.json", key, key_id=tenant, tenant=tenant)
        super().__init__(sim_config(folder / "keys.json", **parts))
        self.store = Slow()
        self.cache = Authority(self.store, self.config.cache)

    async def until(self, holds: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            while not holds():
                await asyncio.sleep(0.001)

    async def ask(self, gateway: int = 0) -> tuple[str, str]:
        """x-cache and the text."""
        response = await self.post("/v1/completions", BODY, gateway=gateway)
        return response.headers["x-cache"], json.loads(await response.read())["choices"][0]["text"]

    def held(self) -> int:
        return sum(gateway.mesh.queue.num_held for gateway in self.gateways)

    def streams(self) -> int:
        return sum(len(rank.streams) for rank in self.ranks)


def run(folder: Path, gateways: int, story: Callable[[SlowMesh], Any], **parts: Any) -> None:
    async def main() -> None:
        mesh = SlowMesh(folder, **parts)
        try:
            async with asyncio.timeout(60):
                await mesh.start(1, gateways)
                await story(mesh)
        finally:
            await mesh.stop()

    asyncio.run(main())


def test_a_miss_has_its_lease_when_the_cache_answers_and_no_engine_began_before(tmp_path: Path) -> None:
    async def story(mesh: SlowMesh) -> None:
        mesh.store.held = []
        asked = asyncio.create_task(mesh.ask())
        await mesh.until(lambda: mesh.held() == 1)
        assert mesh.streams() == 0
        mesh.store.let_go()
        assert (await asked)[0] == "miss"
        await mesh.until(lambda: mesh.held() == 0)

    run(tmp_path, 1, story)


def test_a_kept_answer_gives_the_lease_back_and_no_engine_hears_of_it(tmp_path: Path) -> None:
    async def story(mesh: SlowMesh) -> None:
        _, said = await mesh.ask(0)
        await mesh.until(lambda: mesh.cache.stats().stored == 1)
        mesh.ranks[0].engine.wedge()
        mesh.store.held = []
        asked = asyncio.create_task(mesh.ask(1))
        await mesh.until(lambda: mesh.held() == 1)
        mesh.store.let_go()
        assert await asked == ("hit", said)
        await mesh.until(lambda: mesh.held() == 0)
        assert mesh.streams() == 0
        mesh.ranks[0].engine.unwedge()

    run(tmp_path, 2, story)


def test_a_client_that_leaves_meanwhile_leaves_nothing_behind(tmp_path: Path) -> None:
    async def story(mesh: SlowMesh) -> None:
        mesh.store.held = []
        asked = asyncio.create_task(mesh.ask())
        await mesh.until(lambda: mesh.held() == 1)
        asked.cancel()
        await mesh.until(lambda: mesh.held() == 0 and mesh.cache.stats().flights == 0)
        mesh.store.let_go()
        assert (await mesh.ask())[0] == "miss"

    run(tmp_path, 1, story)


def test_two_gateways_asked_at_once_begin_one_generation(tmp_path: Path) -> None:
    async def story(mesh: SlowMesh) -> None:
        mesh.store.held = []
        asked = [asyncio.create_task(mesh.ask(number % 2)) for number in range(8)]
        await mesh.until(lambda: mesh.held() and mesh.store.held)
        assert mesh.streams() == 0
        mesh.store.let_go()
        said = {text for _, text in await asyncio.gather(*asked)}
        assert len(said) == 1
        assert mesh.cache.stats().generations == 1
        await mesh.until(lambda: mesh.held() == 0)

    run(tmp_path, 2, story)
