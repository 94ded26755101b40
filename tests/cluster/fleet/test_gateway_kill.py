"""kill -9 on gateways of a running mesh, while clients who can come back are reading from them.

Two gateways on one port, simulated engines (every token can be compared), an embedded Valkey; processes, links, Ray
and the kills are real. Whoever loses its connection comes back at once, to whichever gateway the kernel picks, with
the last event id it has.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import statistics
import time
import uuid
from typing import Any

import httpx
import pytest

from tests.cluster.fleet.test_chaos import SEED, TOKENS, said
from tests.cluster.stack import Stack

pytestmark = pytest.mark.cluster

STREAMS = int(os.environ.get("EXPERTMESH_CHAOS_STREAMS", "40"))
KILLS = int(os.environ.get("EXPERTMESH_CHAOS_KILLS", "2"))
KINDS: dict[str, dict[str, Any]] = {
    "plain": {"temperature": 0}, "sampled": {"temperature": 1}, "choices": {"temperature": 0, "n": 2},
}  # fmt: skip


class Reader:
    """Reads one answer to its end over as many connections as that takes."""

    def __init__(self, kind: str, number: int) -> None:
        self.kind, self.number, self.key = kind, number, uuid.uuid4().hex
        self.events: list[dict[str, Any]] = []
        self.last_id = ""
        self.done = False
        self.resumed_s: list[float] = []
        self.refused: list[str] = []
        self.unkept = 0

    async def read(self, client: httpx.AsyncClient) -> None:
        lost_s = 0.0
        while not self.done:
            try:
                lost_s = await self._connect(client, lost_s)
            except httpx.TransportError:
                lost_s = lost_s or time.monotonic()
                await asyncio.sleep(0.02)

    async def _connect(self, client: httpx.AsyncClient, lost_s: float) -> float:
        body = {"model": "sim", "prompt": f"{self.kind} {self.number}", "max_tokens": TOKENS, "stream": True,
                "stream_options": {"include_usage": True}, **KINDS[self.kind]}  # fmt: skip
        headers = {"idempotency-key": self.key}
        if self.last_id:
            headers["last-event-id"] = self.last_id
        event_id = self.last_id
        try:
            async with client.stream("POST", "/v1/completions", json=body, headers=headers) as response:
                if response.status_code != 200:
                    self.refused.append((await response.aread()).decode())
                    assert response.status_code == 503, self.refused
                    await asyncio.sleep(0.05)
                    return lost_s or time.monotonic()
                if self.events and not self.last_id:
                    assert self.unkept  # and told so (a busy journal is not waited for): all anew
                    self.events.clear()
                self.unkept += response.headers["x-resumable"] != "true"
                async for line in response.aiter_lines():
                    if line.startswith("id: "):
                        event_id = line[4:]
                    elif line.startswith("data: {"):
                        if lost_s:
                            self.resumed_s.append(time.monotonic() - lost_s)
                            lost_s = 0.0
                        event = json.loads(line[6:])
                        if "error" in event:
                            break  # handed over: come back
                        self.events.append(event)
                        self.last_id = event_id
                    elif line == "data: [DONE]":
                        self.done = True
        except httpx.TransportError:
            return lost_s or time.monotonic()
        return lost_s or time.monotonic()


async def both_keep(client: httpx.AsyncClient) -> None:
    """Until both gateways serve, and have found the journal: a process alone is no gateway yet, and with the other one
    killed meanwhile there would be none; a journal that was killed in an earlier test is not there at once."""
    seen: set[str] = set()
    body = {"model": "sim", "prompt": "hello", "max_tokens": 1}
    while len(seen) < 2:
        try:
            answer = await client.post(
                "/v1/completions", json=body, headers={"idempotency-key": uuid.uuid4().hex}
            )
            if answer.headers.get("x-resumable") == "true":
                seen.add(answer.headers["x-request-id"].rpartition("-")[0])  # its process, and a number
        except httpx.TransportError:
            pass
        await asyncio.sleep(0.05)


def test_everybody_gets_exactly_the_rest(fleet: Stack) -> None:
    name = "ServeReplica:default:Gateway"
    assert len(fleet.pids(name)) == 2
    readers: list[Reader] = []

    async def main() -> None:
        rng = random.Random(SEED)
        headers = {"authorization": f"Bearer {fleet.key}", "cache-control": "no-store"}
        limits = httpx.Limits(max_connections=STREAMS + 1, max_keepalive_connections=0)
        async with httpx.AsyncClient(
            base_url=fleet.base_url, headers=headers, limits=limits, timeout=60
        ) as client:
            async with asyncio.timeout(60):
                await both_keep(client)
            killing = asyncio.create_task(kill(rng, client))

            async def lane(number: int) -> None:
                kinds = list(KINDS)
                while not killing.done() or number < STREAMS:
                    reader = Reader(kinds[number % len(kinds)], number)
                    readers.append(reader)
                    await reader.read(client)
                    number += STREAMS

            await asyncio.gather(killing, *map(lane, range(STREAMS)))

    async def kill(rng: random.Random, client: httpx.AsyncClient) -> None:
        for _ in range(KILLS):
            await asyncio.sleep(rng.uniform(1.0, 2.5))
            os.kill(rng.choice(fleet.pids(name)), signal.SIGKILL)
            async with asyncio.timeout(60):
                await both_keep(client)

    asyncio.run(main())
    resumed_s = sorted(gap for reader in readers for gap in reader.resumed_s)
    for reader in readers:
        check(reader)
    assert resumed_s, "nobody lost a connection: the kills missed"
    assert any(reader.resumed_s and not reader.unkept for reader in readers), "nobody's answer is kept"
    print(f"{len(readers)} answers, {len(resumed_s)} resumed, "
          f"p50 {statistics.median(resumed_s):.3f} s, longest {resumed_s[-1]:.3f} s, "
          f"{sum(len(reader.refused) for reader in readers)} asked to come later, "
          f"{sum(reader.unkept for reader in readers)} not kept")  # fmt: skip


def check(reader: Reader) -> None:
    """Right to the last token, or an AssertionError that says what is not."""
    texts: dict[int, str] = {}
    for event in reader.events:
        for choice in event["choices"]:
            texts[choice["index"]] = texts.get(choice["index"], "") + choice["text"]
    choices = KINDS[reader.kind].get("n", 1)
    assert texts == dict.fromkeys(range(choices), said(f"{reader.kind} {reader.number}"))
    assert reader.events[-1]["usage"]["completion_tokens"] == TOKENS * choices
    assert len({event["id"] for event in reader.events}) == 1
