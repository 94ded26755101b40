"""Groups of four and eight ranks, one simulated engine each: a lost rank takes its group out at once and costs no
request."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from services.experts.sim_engine import SimEngine
from tests.mesh.local_mesh import LocalMesh, local_mesh, said


async def ask(mesh: LocalMesh, number: int, num_tokens: int) -> str:
    body: dict[str, Any] = {"model": "sim", "prompt": f"question {number}", "max_tokens": num_tokens}
    return (await mesh.json("/v1/completions", body))["choices"][0]["text"]


@pytest.mark.parametrize("ranks", [4, 8])
def test_two_groups_of_many_ranks_and_one_is_lost(tmp_path: Path, ranks: int) -> None:
    streams, num_tokens = 8 * ranks, 60

    async def body() -> None:
        async with local_mesh(tmp_path, engines=1, experts={"sim_step_s": 0.005}) as mesh:
            groups = {name: [await mesh.add_engine(name) for _ in range(ranks)] for name in ("a", "b")}
            await mesh.ranks[0].drain(0.0)  # the mesh starts with one that is in no group
            asked = [asyncio.create_task(ask(mesh, number, num_tokens)) for number in range(streams)]
            victim = groups["a"][1]
            while not len(victim.streams):
                await asyncio.sleep(0.001)
            assert isinstance(victim.engine, SimEngine)
            victim.engine.wedge()
            answers = await asyncio.gather(*asked)
            assert answers == [said(f"question {number}", num_tokens) for number in range(streams)]
            # The other ranks of its group were fenced with it, and nobody else.
            up = {one.engine_id for one in mesh.queue.snapshot()[0].engines if one.up}
            assert up == {rank.engine_id for rank in groups["b"]}

    asyncio.run(body())
