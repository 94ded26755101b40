"""Limits of the queue over HTTP: an operator's key changes them while requests run, no other key does."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from services.gateway import json_key_store
from services.gateway.identity import Permission
from services.queue.rollout.operations import Wish
from tests.mesh.local_mesh import LocalMesh, local_mesh

LIMITS = {"type": "limits"}


async def ask(mesh: LocalMesh, body: object, **who: Any) -> tuple[int, dict[str, Any]]:
    response = await mesh.post("/admin/queue", json.dumps(body).encode(), **who)
    return response.status, json.loads(await response.read())


def test_an_operator_changes_limits_and_nobody_else_does(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with local_mesh(tmp_path) as mesh:

            async def operate(wish: Wish) -> dict[str, object]:
                return mesh.queue.operate(wish)

            mesh.gateways[0].mesh.queue_operate = operate
            for key, status in (("", 401), ("key-of-nobody", 401), ("key-of-client", 403)):
                assert (await ask(mesh, LIMITS, tenant=key))[0] == status
            status, told = await ask(mesh, LIMITS)
            assert (status, told["changed"]) == (200, {})
            assert told["limits"]["max_tenant_queued"] == 5000
            few = {"bands": {"batch": {"max_queued": 1}}, "max_tenant_queued": 3}
            status, told = await ask(mesh, {**LIMITS, "changes": few})
            assert (status, told["changed"]) == (200, few)
            assert mesh.queue.config.max_tenant_queued == 3
            for wrong in ({"max_queued": -1}, {"ordering": "fifo"}, {"bands": {"royal": {}}}, {"x": 1}):
                status, told = await ask(mesh, {**LIMITS, "changes": wrong})
                assert (status, told["error"]["code"]) == (400, "invalid_field"), wrong
            assert (await ask(mesh, {"type": "nonsense"}))[0] == 400
            assert (await ask(mesh, {**LIMITS, "changes": []}))[0] == 400
            assert mesh.queue.config.max_tenant_queued == 3

    permissions = (Permission.GENERATE, Permission.METRICS)
    json_key_store.add(
        tmp_path / "keys.json", "key-of-client", key_id="client", tenant="client", bands=("standard",),
        permissions=permissions,
    )  # fmt: skip
    asyncio.run(scenario())
