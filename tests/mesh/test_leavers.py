"""Clients that leave at random points: a short form of load_tests/bench/bench_disconnects.py.

1. Every slot that was taken is free again; nothing runs on.
2. What is billed is what was delivered, to the token, where the client could count it.
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from load_tests.bench.bench_disconnects import Leaver, bills_of
from tests.mesh.local_mesh import local_mesh


def test_leaving_at_any_point(tmp_path: Path) -> None:
    log, chance = tmp_path / "log", random.Random(5)

    async def main() -> None:
        async with local_mesh(tmp_path, request_log=str(log)) as mesh:
            leavers = [Leaver(chance, number) for number in range(150)]
            for at in range(0, len(leavers), 50):
                await asyncio.gather(*(leaver.go(mesh.port()) for leaver in leavers[at : at + 50]))
            async with asyncio.timeout(20):
                while any(rank.engine.sample_load().running for rank in mesh.ranks) or held(
                    mesh.gateways[0].mesh
                ):
                    await asyncio.sleep(0.01)
            await mesh.gateways[0].stop(0.2)  # writes the rest of the log
            bills = bills_of(log)
            counted = [x for x in leavers if x.way == "done sending" and x.request_id in bills]
            assert len(counted) > 30
            assert {x.request_id: x.delivered for x in counted} == {
                x.request_id: bills[x.request_id] for x in counted
            }
            assert all(x.delivered <= bills[x.request_id] for x in leavers if x.request_id in bills)

    asyncio.run(main())


def held(mesh: object) -> int:
    """Leases that the gateway has or waits for."""
    return len(mesh.queue._tickets)  # type: ignore[attr-defined]
