"""gRPC on the stack that `make run` starts, through Ray and all: the same answers as HTTP, and honest health."""

from __future__ import annotations

import asyncio
import json

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.client.grpc_client import CallFailed, MeshClient, pb, user
from tests.cluster.stack import Stack

pytestmark = pytest.mark.cluster


def chat(model: str, **sampling: float) -> pb.ChatRequest:
    """A greedy chat of eight tokens."""
    fields = {"max_tokens": 8, "temperature": 0.0} | sampling
    request = pb.ChatRequest(model=model, messages=[user("What is the capital of France?")])
    request.sampling.CopyFrom(pb.Sampling(**fields))  # pyright: ignore[reportArgumentType] # ints and floats
    return request


def test_both_wires_say_the_same(sim_mesh: Stack) -> None:
    async def main() -> tuple[str, str, pb.Usage]:
        async with MeshClient(f"127.0.0.1:{sim_mesh.grpc_port}", sim_mesh.key, deadline_s=30) as mesh:
            (model,) = await mesh.models()
            whole = await mesh.chat(chat(model))
            streamed = "".join([event.delta.text async for event in mesh.stream_chat(chat(model))])
            assert streamed == whole.choices[0].content
            return model, streamed, whole.usage

    model, text, usage = asyncio.run(main())
    body = {
        "model": model, "max_tokens": 8, "temperature": 0,
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
    }  # fmt: skip
    status, _, answer = sim_mesh.call("/v1/chat/completions", body)
    assert status == 200, answer
    said = json.loads(answer)
    assert said["choices"][0]["message"]["content"] == text
    assert said["usage"]["prompt_tokens"] == usage.prompt_tokens
    assert said["usage"]["completion_tokens"] == usage.completion_tokens


def test_a_burst_of_streams_on_one_connection(sim_mesh: Stack) -> None:
    async def main() -> None:
        async with MeshClient(f"127.0.0.1:{sim_mesh.grpc_port}", sim_mesh.key, deadline_s=60) as mesh:
            (model,) = await mesh.models()
            alone = (await mesh.chat(chat(model))).choices[0].content

            async def one() -> str:
                return "".join([event.delta.text async for event in mesh.stream_chat(chat(model))])

            assert set(await asyncio.gather(*(one() for _ in range(64)))) == {alone}

    asyncio.run(main())


def test_refusals_have_reasons(sim_mesh: Stack) -> None:
    async def main() -> None:
        address = f"127.0.0.1:{sim_mesh.grpc_port}"
        async with MeshClient(address, "em-wrong") as stranger, MeshClient(address, sim_mesh.key) as mesh:
            with pytest.raises(CallFailed) as unknown:
                await stranger.models()
            with pytest.raises(CallFailed) as wrong:
                await mesh.chat(chat("gpt-9"))
        assert (unknown.value.reason, wrong.value.reason) == ("UNAUTHENTICATED", "MODEL_NOT_FOUND")

    asyncio.run(main())


def test_health_says_what_readyz_says(sim_mesh: Stack) -> None:
    async def main() -> int:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{sim_mesh.grpc_port}") as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            return (await stub.Check(health_pb2.HealthCheckRequest(), timeout=10)).status

    assert asyncio.run(main()) == health_pb2.HealthCheckResponse.SERVING
