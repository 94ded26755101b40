"""A stream of any kind survives its engine: no token lost, none twice, usage exact (issue: dynamo#7930)."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from services.experts.rank import Rank
from services.experts.sim_engine import SimEngine
from tests.mesh.local_mesh import LocalMesh, local_mesh, said

TOKENS = 60


def busy_rank(mesh: LocalMesh) -> Rank:
    """The rank that serves streams now (the busiest)."""
    return max(mesh.ranks, key=lambda rank: len(rank.streams))


async def kill(rank: Rank) -> None:
    """As kill -9 looks from outside: links cut, nothing said."""
    await rank.stop()


async def wedge(rank: Rank) -> None:
    """Alive, healthy to look at, but no token moves."""
    assert isinstance(rank.engine, SimEngine)
    rank.engine.wedge()


async def crash(rank: Rank) -> None:
    """The engine fails its streams and says so."""
    assert isinstance(rank.engine, SimEngine)
    rank.engine.crash()


async def drain(rank: Rank) -> None:
    """Cordon, and hand what runs back at once."""
    await rank.drain(0.0)


FAULTS = {"kill": kill, "wedge": wedge, "crash": crash, "drain": drain}


async def stream_with_fault(
    mesh: LocalMesh, body: dict[str, Any], fault: str, after_events: int = 15
) -> list[dict[str, Any]]:
    """Stream a completion and break its engine after some events."""
    response = await mesh.post("/v1/completions", {"model": "sim", "stream": True, **body})
    assert response.status == 200, await response.read()
    events: list[dict[str, Any]] = []
    async for event in response.events():
        events.append(event)
        if len(events) == after_events:
            await FAULTS[fault](busy_rank(mesh))
    assert "error" not in events[-1], events[-1]
    return events


def text_of(events: list[dict[str, Any]], choice: int = 0) -> str:
    return "".join(c["text"] for e in events for c in e["choices"] if c["index"] == choice)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_plain_stream_loses_and_repeats_nothing(tmp_path: Path, fault: str) -> None:
    async def main() -> None:
        async with local_mesh(tmp_path, experts={"stuck_after_s": 0.3}) as mesh:
            body = {"prompt": "Tell me more", "max_tokens": TOKENS, "stream_options": {"include_usage": True}}
            events = await stream_with_fault(mesh, body, fault)
            assert text_of(events) == said("Tell me more", TOKENS)
            assert events[-1]["usage"]["completion_tokens"] == TOKENS

    asyncio.run(main())


@pytest.mark.parametrize("fault", ["kill", "crash"])
def test_all_choices_of_one_request_survive(tmp_path: Path, fault: str) -> None:
    async def main() -> None:
        async with local_mesh(tmp_path) as mesh:
            events = await stream_with_fault(
                mesh, {"prompt": "Three of you", "max_tokens": TOKENS, "n": 3}, fault, 40
            )
            for choice in range(3):
                assert text_of(events, choice) == said("Three of you", TOKENS)

    asyncio.run(main())


def test_a_stop_string_is_found_across_the_cut(tmp_path: Path) -> None:
    whole = said("Stop somewhere", TOKENS)
    stop = whole[70:83]

    async def main() -> None:
        async with local_mesh(tmp_path) as mesh:
            body = {"prompt": "Stop somewhere", "max_tokens": TOKENS, "stop": [stop]}
            events = await stream_with_fault(mesh, body, "kill", 17)
            assert text_of(events) == whole[: whole.index(stop)]
            assert events[-1]["choices"][0]["finish_reason"] == "stop"

    asyncio.run(main())


def test_log_probabilities_stay_in_step_with_tokens(tmp_path: Path) -> None:
    async def main() -> None:
        async with local_mesh(tmp_path) as mesh:
            body = {"prompt": "How sure", "max_tokens": TOKENS, "logprobs": 2}
            events = await stream_with_fault(mesh, body, "kill")
            tokens = [
                t for e in events for c in e["choices"] if c["logprobs"] for t in c["logprobs"]["tokens"]
            ]
            assert "".join(tokens) == said("How sure", TOKENS)
            assert len(tokens) == TOKENS

    asyncio.run(main())


def test_a_json_schema_is_still_obeyed(tmp_path: Path) -> None:
    schema = {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "n": {"type": "integer"},
            "tags": {"type": "array", "items": {"type": "string"}, "minItems": 6},
        },
        "required": ["city", "n", "tags"],
    }

    async def main() -> None:
        async with local_mesh(tmp_path) as mesh:
            form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
            body = {
                "model": "sim",
                "messages": [{"role": "user", "content": "Where"}],
                "max_tokens": 200,
                "response_format": form,
            }
            alone = await mesh.json("/v1/chat/completions", body, headers={"cache-control": "no-store"})
            response = await mesh.post(
                "/v1/chat/completions", {**body, "stream": True}, headers={"cache-control": "no-store"}
            )
            text, seen = "", 0
            async for event in response.events():
                text += event["choices"][0]["delta"].get("content") or ""
                seen += 1
                if seen == 10:
                    await kill(busy_rank(mesh))
            assert text == alone["choices"][0]["message"]["content"]
            assert set(json.loads(text)) == {"city", "n", "tags"}

    asyncio.run(main())


def test_many_streams_over_several_deaths(tmp_path: Path) -> None:
    async def main() -> None:
        async with local_mesh(tmp_path, engines=3) as mesh:

            async def one(number: int) -> None:
                body = {"model": "sim", "prompt": f"stream {number}", "max_tokens": 150}
                answer = await mesh.json("/v1/completions", body, headers={"cache-control": "no-store"})
                assert answer["choices"][0]["text"] == said(f"stream {number}", 150)
                assert answer["usage"]["completion_tokens"] == 150

            async def faults() -> None:
                for _ in range(3):
                    await asyncio.sleep(0.08)
                    await kill(busy_rank(mesh))
                    mesh.ranks = [rank for rank in mesh.ranks if not rank._stopped]
                    await mesh.add_engine()

            await asyncio.gather(faults(), *(one(number) for number in range(40)))

    asyncio.run(main())


def test_the_queue_may_die_under_load(tmp_path: Path) -> None:
    async def main() -> None:
        async with local_mesh(tmp_path, experts={"max_num_seqs": 4}) as mesh:

            async def one(number: int) -> None:
                body = {"model": "sim", "prompt": f"wait {number}", "max_tokens": 40}
                answer = await mesh.json("/v1/completions", body, headers={"cache-control": "no-store"})
                assert answer["choices"][0]["text"] == said(f"wait {number}", 40)

            async def fault() -> None:
                await asyncio.sleep(0.1)
                await mesh.restart_queue()

            await asyncio.gather(fault(), *(one(number) for number in range(40)))

    asyncio.run(main())


def test_a_client_that_leaves_frees_its_slot(tmp_path: Path) -> None:
    async def main() -> None:
        async with local_mesh(tmp_path, engines=1) as mesh:
            response = await mesh.post(
                "/v1/completions", {"model": "sim", "prompt": "x", "max_tokens": 4000, "stream": True}
            )
            async for _ in response.events():
                break
            assert len(mesh.ranks[0].streams) == 1
            response.hang_up()
            async with asyncio.timeout(1.0):
                while len(mesh.ranks[0].streams):
                    await asyncio.sleep(0.001)
            assert mesh.gateways[0].mesh.queue.num_held == 0

    asyncio.run(main())


def test_a_deadline_reaches_the_engine(tmp_path: Path) -> None:
    async def main() -> None:
        async with local_mesh(tmp_path, engines=1) as mesh:
            body = {"model": "sim", "prompt": "x", "max_tokens": 4000}
            response = await mesh.post("/v1/completions", body, headers={"x-request-deadline-ms": "80"})
            assert response.status in (503, 504)
            assert b"deadline" in await response.read()
            assert len(mesh.ranks[0].streams) == 0

    asyncio.run(main())
