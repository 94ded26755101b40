"""gRPC clients of a gateway that died get exactly the rest from another one, by the same journal as HTTP's."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from services.client.grpc_client import CallFailed, MeshClient, pb
from tests.mesh.local_mesh import KEYS, LocalMesh, local_mesh, said
from tests.mesh.test_gateway_death import PATH, Client, ask, settled

TOKENS = 60


def client_of(mesh: LocalMesh, gateway: int, tenant: str = "acme") -> MeshClient:
    return MeshClient(f"127.0.0.1:{mesh.gateways[gateway].grpc_port}", KEYS[tenant])


def request(prompt: str, *, key: str = "k", n: int = 1, max_tokens: int = TOKENS) -> pb.TextRequest:
    made = pb.TextRequest(model="sim", prompts=[pb.Prompt(text=prompt)])
    made.sampling.max_tokens, made.sampling.temperature, made.sampling.n = max_tokens, 0.0, n
    made.options.idempotency_key = key
    return made


@pytest.mark.parametrize("n", [1, 2])
def test_the_rest_of_a_stream_comes_from_another_gateway(tmp_path: Path, n: int) -> None:
    async def main() -> None:
        async with local_mesh(tmp_path, gateways=2) as mesh:
            texts, wanted = [""] * n, request("Tell me more", n=n)
            async with client_of(mesh, 0) as first:
                seen = 0
                async for event in first.stream_text(wanted):
                    if event.HasField("begin"):
                        assert event.begin.resumable
                        assert not event.begin.replayed
                        continue
                    texts[event.delta.choice] += event.delta.text
                    wanted.options.last_event_id = event.event_id
                    if (seen := seen + 1) == 23:
                        break
            await mesh.kill_gateway(0)
            async with client_of(mesh, 1) as second:
                ends = 0
                async for event in second.stream_text(wanted):
                    if event.HasField("delta"):
                        texts[event.delta.choice] += event.delta.text
                    if event.HasField("begin"):
                        assert event.begin.replayed
                    if event.HasField("end"):
                        ends += 1
                        assert event.end.usage.completion_tokens == n * TOKENS
                assert ends == 1
            assert texts == [said("Tell me more", TOKENS)] * n
            await settled(mesh, n * TOKENS)

    asyncio.run(main())


def test_a_whole_answer_is_given_again_on_any_wire(tmp_path: Path) -> None:
    """gRPC and HTTP are one pipeline: a key of one is a key of the other, for the same request."""

    async def main() -> None:
        async with local_mesh(tmp_path, gateways=2) as mesh:
            wanted = request("Again")
            async with client_of(mesh, 0) as first, client_of(mesh, 1) as second:
                one, two = await asyncio.gather(first.text(wanted), second.text(wanted))
                assert one.choices == two.choices
                assert one.request_id == two.request_id
                assert one.resumable
                assert two.resumable
                assert one.replayed != two.replayed
                with pytest.raises(CallFailed) as refused:
                    await second.text(request("Something else"))
                assert refused.value.reason == "IDEMPOTENCY_CONFLICT"
            http = await mesh.json(PATH, ask("Again") | {"stream": False}, headers={"idempotency-key": "k"})
            assert http["choices"][0]["text"] == one.choices[0].text
            assert http["id"] == "cmpl-" + one.request_id
            async with client_of(mesh, 1, "rival") as other:
                assert (await other.text(wanted)).request_id != one.request_id
            await settled(mesh, 2 * TOKENS)

    asyncio.run(main())


def test_a_stream_begun_on_http_ends_on_grpc(tmp_path: Path) -> None:
    async def main() -> None:
        async with local_mesh(tmp_path, gateways=2) as mesh:
            http = Client(mesh, ask("Change"), "k")
            await http.read(0, 20)
            wanted, text = request("Change"), http.text()
            wanted.options.last_event_id = http.last_id
            async with client_of(mesh, 1) as client:
                async for event in client.stream_text(wanted):
                    text += event.delta.text
            assert text == said("Change", TOKENS)
            wanted.options.last_event_id = "gone/3-1a"
            async with client_of(mesh, 1) as client:
                with pytest.raises(CallFailed) as refused:
                    [event async for event in client.stream_text(wanted)]
            assert refused.value.reason == "RESUME_EXPIRED"

    asyncio.run(main())


def test_a_cancelled_call_leaves_its_answer(tmp_path: Path) -> None:
    async def main() -> None:
        async with local_mesh(tmp_path, gateways=2) as mesh:
            wanted = request("Patience", max_tokens=200)
            async with client_of(mesh, 0) as first:
                call = asyncio.ensure_future(first.text(wanted))
                while not any(len(rank.streams) for rank in mesh.ranks):
                    await asyncio.sleep(0.005)
                call.cancel()
            async with client_of(mesh, 1) as second:
                answer = await second.text(wanted)
            assert answer.choices[0].text == said("Patience", 200)
            assert mesh.journal.stats().opened == 1
            await settled(mesh, 200)

    asyncio.run(main())
