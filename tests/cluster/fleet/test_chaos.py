"""kill -9 on a running mesh: engines, the queue, the cache, while streams of every kind are on the line.

The short form of `make chaos`. Engines are simulated, so that every token can be compared with what it must be;
processes, links, Ray and the kills are real. Kills come by seed; a kill waits until its victim has a successor, as
otherwise nobody would be left to kill.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import time
from typing import Any

import httpx
import pytest

from services.experts.sim_answers import expected_ids
from services.request import SamplingParams
from services.sim_tokenizer import decode, encode
from tests.cluster.stack import Stack

STREAMS = int(os.environ.get("EXPERTMESH_CHAOS_STREAMS", "60"))
KILLS = int(os.environ.get("EXPERTMESH_CHAOS_KILLS", "2"))
SEED = int(os.environ.get("EXPERTMESH_CHAOS_SEED", "1"))
TOKENS = 200
SCHEMA = {
    "type": "object",
    "properties": {
        "tags": {"type": "array", "items": {"type": "string"}, "minItems": 20},
        "n": {"type": "integer"},
    },
    "required": ["tags", "n"],
}
KINDS = ("plain", "choices", "logprobs", "stop", "schema")


def said(prompt: str, num_tokens: int = TOKENS) -> str:
    """What the simulated model answers."""
    return decode(expected_ids(encode(prompt), num_tokens, SamplingParams(num_tokens))).decode()


def body_of(kind: str, number: int) -> tuple[str, dict[str, Any]]:
    """Path and body of one stream."""
    prompt = f"{kind} {number}"
    if kind == "schema":
        form = {"type": "json_schema", "json_schema": {"name": "tags", "schema": SCHEMA}}
        messages = [{"role": "user", "content": prompt}]
        return "/v1/chat/completions", {"messages": messages, "max_tokens": 400, "response_format": form}
    body: dict[str, Any] = {"prompt": prompt, "max_tokens": TOKENS, "stream_options": {"include_usage": True}}
    if kind == "choices":
        body["n"] = 2
    if kind == "logprobs":
        body["logprobs"] = 1
    if kind == "stop":
        body["stop"] = [said(prompt)[500:512]]
    return "/v1/completions", body


def check(kind: str, number: int, events: list[dict[str, Any]]) -> None:
    """Right to the last token, or an AssertionError that says what is not."""
    assert events and "error" not in events[-1], (kind, number, events[-1:])
    texts: dict[int, str] = {}
    for event in events:
        for choice in event["choices"]:
            piece = choice["delta"].get("content") or "" if kind == "schema" else choice["text"]
            texts[choice["index"]] = texts.get(choice["index"], "") + piece
    if kind == "schema":
        assert len(json.loads(texts[0])["tags"]) >= 20
        return
    expected = said(f"{kind} {number}")
    if kind == "stop":
        expected = expected[: expected.index(expected[500:512])]
    assert texts == dict.fromkeys(range(2 if kind == "choices" else 1), expected)
    usage = events[-1]["usage"]
    if kind != "stop":
        assert usage["completion_tokens"] == TOKENS * len(texts)


async def stream(client: httpx.AsyncClient, kind: str, number: int, gaps_s: list[float]) -> None:
    path, body = body_of(kind, number)
    events: list[dict[str, Any]] = []
    last_s = 0.0
    async with client.stream("POST", path, json={"model": "sim", "stream": True, **body}) as response:
        assert response.status_code == 200, await response.aread()
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                now_s = time.monotonic()
                gaps_s.append(now_s - last_s if last_s else 0.0)
                last_s = now_s
                events.append(json.loads(line[6:]))
    check(kind, number, events)


async def kill_by_seed(stack: Stack, victim: str, rng: random.Random) -> None:
    """kill -9 one process of a kind, `KILLS` times, each after a successor is there."""
    name = f"ServeReplica:default:{victim}"
    alive = len(stack.pids(name))
    for _ in range(KILLS):
        await asyncio.sleep(rng.uniform(0.2, 1.0))
        os.kill(rng.choice(stack.pids(name)), signal.SIGKILL)
        async with asyncio.timeout(60):
            while len(stack.pids(name)) < alive:
                await asyncio.sleep(0.05)


@pytest.mark.parametrize("victim", ["ExpertShards", "PriorityQueue", "Cache"])
def test_no_stream_notices_a_kill(fleet: Stack, victim: str) -> None:
    gaps_s: list[float] = []

    async def main() -> None:
        rng = random.Random(SEED)
        headers = {"authorization": f"Bearer {fleet.key}", "cache-control": "no-store"}
        limits = httpx.Limits(max_connections=STREAMS)
        async with httpx.AsyncClient(
            base_url=fleet.base_url, headers=headers, limits=limits, timeout=180
        ) as client:
            numbers = iter(range(10_000))
            killing = asyncio.create_task(kill_by_seed(fleet, victim, rng))

            async def lane(kind: str) -> None:
                await stream(client, kind, next(numbers), gaps_s)
                while not killing.done():
                    await stream(client, kind, next(numbers), gaps_s)

            await asyncio.gather(killing, *(lane(KINDS[number % len(KINDS)]) for number in range(STREAMS)))

    asyncio.run(main())
    gaps_s.sort()
    print(
        f"{victim}: longest gap {gaps_s[-1] * 1e3:.0f} ms, p99.9 {gaps_s[int(len(gaps_s) * 0.999)] * 1e3:.0f} ms"
    )
