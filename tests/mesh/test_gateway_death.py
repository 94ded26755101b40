"""A stream survives its gateway: whoever comes back, to any gateway, gets exactly the rest; generated and billed once."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from services.telemetry import names
from tests.mesh.local_mesh import LocalMesh, local_mesh, said

TOKENS = 60
PATH = "/v1/completions"


def ask(prompt: str, **fields: Any) -> dict[str, Any]:
    return {"model": "sim", "prompt": prompt, "max_tokens": TOKENS, "temperature": 0, "stream": True} | fields


class Client:
    """Somebody who comes back until the answer is whole. `events` are all it ever got, in order."""

    def __init__(self, mesh: LocalMesh, body: dict[str, Any], key: str = "a-key", path: str = PATH) -> None:
        self.mesh, self.body, self.key, self.path = mesh, body, key, path
        self.events: list[dict[str, Any]] = []
        self.last_id = ""
        self.done = False

    async def read(self, gateway: int, upto: int | None = None, **headers: str) -> dict[str, str]:
        """Read some more events (all when `upto` is None), then hang up. Returns the response's headers."""
        sent = {"idempotency-key": self.key, **headers}
        if self.last_id:
            sent["last-event-id"] = self.last_id
        response = await self.mesh.post(self.path, self.body, gateway=gateway, headers=sent)
        assert response.status == 200, await response.read()
        left = upto
        async for event_id, data in response.identified():
            self.take(event_id, data)
            if left is not None and (left := left - 1) <= 0:
                break
        response.hang_up()
        return response.headers

    def take(self, event_id: str, data: str) -> None:
        assert not self.done, "something comes after [DONE]"
        if data == "[DONE]":
            self.done = True
            return
        self.last_id = event_id
        self.events.append(json.loads(data))

    def text(self, choice: int = 0) -> str:
        pieces = [c for e in self.events for c in e["choices"] if c["index"] == choice]
        return "".join(c.get("text") or c.get("delta", {}).get("content") or "" for c in pieces)


def billed(mesh: LocalMesh) -> int:
    """Completion tokens that all gateways billed."""
    total = 0
    for gateway in mesh.gateways:
        for family in gateway.mesh.telemetry.metrics.snapshot():
            if family.metric is names.TOKENS:
                total += sum(int(s.value) for s in family.samples if s.labels[2] == "completion")
    return total


async def settled(mesh: LocalMesh, tokens: int) -> None:
    """Bills come a moment after the last byte."""
    async with asyncio.timeout(5.0):
        while billed(mesh) != tokens:
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("temperature", [0, 1])
@pytest.mark.parametrize("cut", [1, 17, 45])
def test_the_rest_comes_from_another_gateway(tmp_path: Path, cut: int, temperature: int) -> None:
    async def main() -> None:
        async with local_mesh(tmp_path, gateways=2) as mesh:
            body = ask("Tell me more", temperature=temperature, stream_options={"include_usage": True})
            client = Client(mesh, body)
            headers = await client.read(0, cut)
            assert headers["x-resumable"] == "true"
            await mesh.kill_gateway(0)
            await client.read(1)
            assert client.done
            assert client.text() == said("Tell me more", TOKENS)
            assert client.events[-1]["usage"]["completion_tokens"] == TOKENS
            assert len({event["id"] for event in client.events}) == 1
            await settled(mesh, TOKENS)

    asyncio.run(main())
