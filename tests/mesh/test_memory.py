"""A request leaves nothing behind that only the garbage collector could free.

What it used is then free the moment it ends; the next request gets the same memory, warm in the processor's caches,
and no collection stops all streams for a while.
"""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.mesh.local_mesh import LocalMesh, local_mesh

NUM_REQUESTS = 10


async def ring_of_each(mesh: LocalMesh, body: dict[str, Any]) -> Counter[str]:
    """Our objects that were unreachable and yet not freed, by type, after a few requests."""

    async def ask(number: int) -> None:
        response = await mesh.post("/v1/completions", {**body, "prompt": f"{body['max_tokens']} {number}"})
        assert response.status == 200
        await response.read()

    await ask(0)  # what is made once
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        for number in range(1, NUM_REQUESTS + 1):
            await ask(number)
        gc.collect()
        names = (f"{type(one).__module__}.{type(one).__qualname__}" for one in gc.garbage)
        return Counter(name for name in names if name.startswith(("services.", "uvicorn.")))
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


@pytest.mark.parametrize(
    "wish",
    [
        {"temperature": 1.0},
        {"temperature": 1.0, "stream": True},
        {"temperature": 0.0},
        {"temperature": 1.0, "n": 2, "logprobs": 1},
    ],
)
def test_a_request_leaves_no_ring_of_references(tmp_path: Path, wish: dict[str, Any]) -> None:
    async def main() -> None:
        async with local_mesh(tmp_path) as mesh:
            assert not await ring_of_each(mesh, {"model": "sim", "max_tokens": 8, **wish})

    asyncio.run(main())
