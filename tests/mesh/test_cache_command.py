"""`expertmesh cache stats` and `purge` against a mesh: what an operator sees is what happened."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from services.cli.cache import app
from services.gateway import json_key_store
from services.gateway.identity import Permission
from tests.mesh.local_mesh import KEYS, LocalMesh, sim_config

BODY: dict[str, Any] = {
    "model": "sim",
    "prompt": "Who are you?",
    "max_tokens": 6,
    "temperature": 0,
    "user": "ann",
}


async def command(mesh: LocalMesh, *words: str) -> dict[str, str]:
    """What it prints, by name."""
    url = f"http://127.0.0.1:{mesh.gateways[0].http_port}"
    result = await asyncio.to_thread(CliRunner().invoke, app, [*words, "--url", url, "--key", KEYS["acme"]])
    assert result.exit_code == 0, result.output
    return dict(line.split("\t", 1) for line in result.output.splitlines())


def test_stats_say_what_hits_saved_and_a_purge_ends_them(tmp_path: Path) -> None:
    async def main() -> None:
        keys = tmp_path / "keys.json"
        permissions = (Permission.GENERATE, Permission.OPERATE)
        json_key_store.add(keys, KEYS["acme"], key_id="acme", tenant="acme", permissions=permissions)
        mesh = LocalMesh(sim_config(keys))
        try:
            async with asyncio.timeout(60):
                await mesh.start(1)
                verdicts: list[str] = []

                async def ask() -> None:
                    response = await mesh.post("/v1/completions", BODY)
                    verdicts.append(response.headers["x-cache"])
                    json.loads(await response.read())

                for _ in range(3):
                    await ask()
                seen = await command(mesh, "stats")
                assert seen["gateway.local_hits"] == "2"
                assert seen["gateway.generations"] == "1"
                assert int(seen["gateway.saved_tokens"]) > 2 * 6
                assert float(seen["gateway.saved_s"]) > 0
                assert (seen["cache.stored"], seen["cache.store.kind"]) == ("1", "memory")
                assert (await command(mesh, "purge", "--tenant", "acme", "--person", "ann"))[
                    "confirmed"
                ] == "True"
                await ask()
                assert verdicts == ["miss", "hit", "hit", "miss"]
                assert (await command(mesh, "stats"))["cache.purges"] == "1"
        finally:
            await mesh.stop()

    asyncio.run(main())
