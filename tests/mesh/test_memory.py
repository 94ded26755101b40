"""A request leaves nothing behind: neither what only the garbage collector could free, nor what stays.

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


async def ring_of_each(
    mesh: LocalMesh, body: dict[str, Any], *, keyed: bool = False, leaves: bool = False, status: int = 200
) -> Counter[str]:
    """Our objects that were unreachable and yet not freed, by type, after a few requests. `leaves`: the client is gone
    after its first event."""

    async def ask(number: int) -> None:
        headers = {"idempotency-key": f"k{number}"} if keyed else {}
        prompt = f"{body['max_tokens']} {number}"
        response = await mesh.post("/v1/completions", {**body, "prompt": prompt}, headers=headers)
        assert response.status == status
        if leaves:
            await anext(response.events())
            response.hang_up()
            while mesh.gateways[0]._http.connections:  # it tells nobody
                await asyncio.sleep(0)
        else:
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
        return Counter(name for name in names if name.startswith("services."))
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


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_nor_does_an_answer_that_is_kept(tmp_path: Path, temperature: float) -> None:
    async def main() -> None:
        async with local_mesh(tmp_path) as mesh:
            body = {"model": "sim", "max_tokens": 8, "stream": True, "temperature": temperature}
            assert not await ring_of_each(mesh, body, keyed=True)

    asyncio.run(main())


def test_nor_a_client_that_leaves(tmp_path: Path) -> None:
    async def main() -> None:
        async with local_mesh(tmp_path) as mesh:
            body = {"model": "sim", "max_tokens": 4000, "stream": True, "temperature": 1.0}
            assert not await ring_of_each(mesh, body, leaves=True)

    asyncio.run(main())


def test_nor_a_request_that_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with local_mesh(tmp_path) as mesh:
            assert not await ring_of_each(mesh, {"model": "none", "max_tokens": 8}, status=404)

    asyncio.run(main())


KINDS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"temperature": 1.0}, {}),
    ({"temperature": 1.0, "stream": True}, {}),
    ({"temperature": 1.0, "stream": True, "n": 2, "logprobs": 1}, {}),
    ({"temperature": 0.0, "stop": ["never"]}, {}),
    ({"temperature": 0.0, "stream": True}, {"keyed": True}),
    ({"temperature": 1.0, "stream": True}, {"keyed": True}),
    ({"temperature": 1.0, "stream": True, "max_tokens": 4000}, {"leaves": True}),
    ({"temperature": 1.0, "max_tokens": -1}, {"status": 400}),
]
"""Of each kind of request: body, and how it goes."""
NUM_ROUNDS = 8


async def rounds(mesh: LocalMesh, first: int) -> Counter[str]:
    """NUM_ROUNDS requests of each kind, none seen before and nothing to be kept of any; then our objects by type, in
    all processes' parts of the mesh."""
    for number in range(first, first + NUM_ROUNDS):
        for kind, (wish, how) in enumerate(KINDS):
            headers = {"cache-control": "no-store"}
            if how.get("keyed"):
                headers["idempotency-key"] = f"{kind}-{number}"
            body = {"model": "sim", "max_tokens": 4, **wish, "prompt": f"{kind} {number}"}
            response = await mesh.post("/v1/completions", body, headers=headers)
            assert response.status == how.get("status", 200)
            if how.get("leaves"):
                await anext(response.events())
                response.hang_up()
            else:
                await response.read()
            while mesh.gateways[0]._http.connections:
                await asyncio.sleep(0)
    book = mesh.journal.book
    book._sweep_s = 0.0  # it sweeps once a second
    mesh.journal._run(book.tick(mesh.journal._clock.now_s() + mesh.config.journal.keep_s + 1.0))
    assert not len(book)
    while any(engine.running for engine in mesh.queue.snapshot()[0].engines):
        await asyncio.sleep(0)
    gc.collect()
    names = (f"{type(one).__module__}.{type(one).__qualname__}" for one in gc.get_objects())
    return Counter(name for name in names if name.startswith(("services.", "_asyncio.")))


def test_twice_as_many_requests_leave_as_many_objects(tmp_path: Path) -> None:
    async def main() -> None:
        async with local_mesh(tmp_path, experts={"sim_step_s": 0.0005}) as mesh:
            await rounds(mesh, 0)  # what is made once
            first, second, third = [await rounds(mesh, turn * NUM_ROUNDS) for turn in (1, 2, 3)]
            # Timers and futures of the mesh's own come and go, a dozen of them, but do not grow twice in a row; what
            # requests leave would be there for each of them, each time.
            grown = (second - first) & (third - second)
            assert not {name: more for name, more in grown.items() if more >= NUM_ROUNDS}

    asyncio.run(main())
