"""What requests cost, through a whole mesh: the gateway's line of each request and the queue's accounts say the same,
also where an engine died under a stream."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tests.mesh.local_mesh import local_mesh
from tests.mesh.test_survival import stream_with_fault

PRICES = {"prices": ({"name": "*", "per_hour": 3600.0},), "currency": "CNY"}
CHAT = {
    "model": "sim",
    "messages": [{"role": "user", "content": "hello"}],
    "max_tokens": 20,
    "temperature": 1.0,
}


def test_lines_and_accounts_agree_over_a_killed_engine(tmp_path: Path) -> None:
    log = tmp_path / "log"

    async def main() -> None:
        async with local_mesh(tmp_path, engines=2, queue=PRICES, request_log=str(log)) as mesh:
            for tenant in ("acme", "acme", "rival"):
                response = await mesh.post("/v1/chat/completions", CHAT | {"n": 2}, tenant=tenant)
                assert response.status == 200, await response.read()
                await response.read()
            await stream_with_fault(mesh, {"prompt": "count", "max_tokens": 60}, "kill")
            assert (await (await mesh.post("/v1/chat/completions", {"model": "sim"})).read()) != b""
            async with asyncio.timeout(20):
                while any(e.running for view in mesh.queue.snapshot() for e in view.engines):
                    await asyncio.sleep(0.01)
            (view,) = mesh.queue.snapshot()
            await mesh.gateways[0].stop(0.2)  # writes the rest of the log
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        for tenant in ("acme", "rival"):
            said = sum(line.get("cost", 0.0) for line in lines if line.get("tenant") == tenant)
            counted = sum(row.cost for row in view.tenants if row.tenant == tenant)
            assert said == pytest.approx(counted, rel=0.2), tenant
            assert counted > 0.0
        answered = [line for line in lines if line["outcome"] == "completed"]
        assert len(answered) == 4
        assert all(line["cost"] > 0.0 for line in answered)
        assert all(line.get("cost", 0.0) == 0.0 for line in lines if line["outcome"] != "completed")
        assert max(line.get("migrations", 0) for line in lines) == 1
        assert sum(pool.used for pool in view.pools) == pytest.approx(sum(row.cost for row in view.tenants))
        assert view.currency == "CNY"

    asyncio.run(main())
