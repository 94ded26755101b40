"""A gateway that goes away while it answers: who is not done by the end of the grace is told so, on every route, and
the log says whose doing it was. Nobody's connection just breaks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from services.client.grpc_client import CallFailed, MeshClient, pb
from tests.mesh.local_mesh import LocalMesh, local_mesh

GRACE_S = 0.2
LONG = {"model": "sim", "max_tokens": 4000, "ignore_eos": True}
CHAT = LONG | {"messages": [{"role": "user", "content": "tell me all"}]}


@asynccontextmanager
async def slow_mesh(tmp_path: Path) -> AsyncIterator[LocalMesh]:
    """Answers that take minutes."""
    log = str(tmp_path / "requests.jsonl")
    async with local_mesh(tmp_path, experts={"sim_step_s": 0.05}, request_log=log) as mesh:
        yield mesh


async def until_running(mesh: LocalMesh, num: int) -> None:
    def num_leases() -> int:
        lanes = mesh.queue._lanes.all
        return sum(len(engine.leases) for lane in lanes for engine in lane.state.fleet.engines.values())

    while num_leases() < num:
        await asyncio.sleep(0.01)


def told(tmp_path: Path) -> list[tuple[str, str]]:
    """Outcome and error of each request that had a key, as the request log has it."""
    lines = map(json.loads, (tmp_path / "requests.jsonl").read_text().splitlines())
    return [(line["outcome"], line.get("error_code", "")) for line in lines if line["tenant"] == "acme"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", CHAT | {"stream": True}),
        ("/v1/chat/completions", CHAT | {"stream": True, "n": 2, "logprobs": True}),
        ("/v1/completions", LONG | {"prompt": "all", "stream": True}),
        ("/v1/responses", {"model": "sim", "input": "all", "max_output_tokens": 4000, "stream": True}),
    ],
    ids=["chat", "choices", "completions", "responses"],
)
def test_a_stream_that_is_not_done_ends_with_its_reason(
    tmp_path: Path, path: str, body: dict[str, Any]
) -> None:
    async def run() -> None:
        async with slow_mesh(tmp_path) as mesh:
            response = await mesh.post(path, body)
            assert response.status == 200
            events = response.events()
            await anext(events)
            stopping = asyncio.create_task(mesh.gateways[0].stop(GRACE_S))
            last = [event async for event in events][-1]
            await stopping
            error = last["response"]["error"] if path == "/v1/responses" else last["error"]
            assert error["code"] == "draining", last

    asyncio.run(run())
    assert told(tmp_path) == [("evicted", "draining")]


@pytest.mark.parametrize("key", ["", "k-1"], ids=["plain", "journalled"])
def test_a_whole_answer_that_is_not_done_is_refused_with_its_reason(tmp_path: Path, key: str) -> None:
    async def run() -> None:
        async with slow_mesh(tmp_path) as mesh:
            headers = {"idempotency-key": key} if key else {}
            asked = asyncio.create_task(mesh.post("/v1/chat/completions", CHAT, headers=headers))
            await until_running(mesh, 1)
            await mesh.gateways[0].stop(GRACE_S)
            response = await asked
            assert response.status == 503
            assert json.loads(await response.read())["error"]["code"] == "draining"
            assert "retry-after" in response.headers

    asyncio.run(run())


def test_calls_over_grpc_that_are_not_done_fail_with_the_reason(tmp_path: Path) -> None:
    async def run() -> None:
        async with (
            slow_mesh(tmp_path) as mesh,
            MeshClient(f"127.0.0.1:{mesh.gateways[0].grpc_port}", "key-of-acme", deadline_s=60.0) as client,
        ):
            asked = pb.ChatRequest(model="sim", messages=[pb.Message(role=pb.ROLE_USER, content="all")])
            asked.sampling.max_tokens, asked.sampling.ignore_eos = 4000, True

            async def stream() -> None:
                async for _ in client.stream_chat(asked):
                    pass

            async def fails(call: Coroutine[Any, Any, Any]) -> str:
                with pytest.raises(CallFailed) as failed:
                    await call
                return failed.value.reason

            ends = [asyncio.create_task(fails(call)) for call in (stream(), client.chat(asked))]
            await until_running(mesh, 2)
            await mesh.gateways[0].stop(GRACE_S)
            assert [await end for end in ends] == ["DRAINING", "DRAINING"]

    asyncio.run(run())
    assert told(tmp_path) == [("evicted", "draining")] * 2


def test_who_is_done_in_time_hears_nothing_of_it(tmp_path: Path) -> None:
    async def run() -> None:
        async with slow_mesh(tmp_path) as mesh:
            body = {"model": "sim", "prompt": "a", "max_tokens": 8, "ignore_eos": True}
            asked = asyncio.create_task(mesh.json("/v1/completions", body))
            await until_running(mesh, 1)
            await mesh.gateways[0].stop(30.0)
            assert (await asked)["usage"]["completion_tokens"] == 8

    asyncio.run(run())
    assert told(tmp_path) == [("completed", "")]
