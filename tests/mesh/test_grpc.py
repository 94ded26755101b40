"""HTTP and gRPC on one mesh: the same request gives the same tokens, the same usage, and the same reason on
every error; deadlines, cancellation and health behave as a gRPC user expects."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import ParseDict
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.api.status import REASON_BY_CODE
from services.client.grpc_client import CallFailed, MeshClient, pb, user
from tests.mesh.local_mesh import KEYS, LocalMesh, local_mesh, said

HI = [{"role": "user", "content": "Hello"}]
PB_HI = [{"role": "ROLE_USER", "content": "Hello"}]
Body = Callable[[LocalMesh, MeshClient], Awaitable[None]]


def on_a_mesh(
    tmp_path: Path, body: Body, *, key: str = KEYS["acme"], deadline_s: float | None = None, **parts: Any
) -> None:
    async def main() -> None:
        async with local_mesh(tmp_path, **parts) as mesh:
            address = f"127.0.0.1:{mesh.gateways[0].grpc_port}"
            async with MeshClient(address, key, deadline_s=deadline_s) as client:
                await body(mesh, client)

    asyncio.run(main())


SAME: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"max_tokens": 12}, {"max_tokens": 12}),
    ({"max_tokens": 12, "temperature": 0}, {"max_tokens": 12, "temperature": 0}),
    ({"max_tokens": 9, "seed": 7, "n": 3}, {"max_tokens": 9, "seed": 7, "n": 3}),
    ({"max_tokens": 9, "logprobs": True, "top_logprobs": 2}, {"max_tokens": 9, "logprobs": 2}),
]  # fmt: skip


def test_the_same_chat_gives_the_same_answer(tmp_path: Path) -> None:
    async def body(mesh: LocalMesh, client: MeshClient) -> None:
        for http, grpc_fields in SAME:
            headers = {"cache-control": "no-store"}
            body = {"model": "sim", "messages": HI, **http}
            one = await mesh.json("/v1/chat/completions", body, headers=headers)
            fields = {
                "model": "sim", "messages": PB_HI, "sampling": grpc_fields, "options": {"cache": "CACHE_USE_NO_STORE"}
            }  # fmt: skip
            request = ParseDict(fields, pb.ChatRequest())
            whole = await client.chat(request)
            texts = [choice["message"]["content"] for choice in one["choices"]]
            assert [choice.content for choice in whole.choices] == texts
            streamed = dict.fromkeys(range(len(texts)), "")
            last = pb.StreamEvent()
            async for last in client.stream_chat(request):
                streamed[last.delta.choice] += last.delta.text
            assert list(streamed.values()) == texts
            for usage in (whole.usage, last.end.usage):
                assert usage.prompt_tokens == one["usage"]["prompt_tokens"]
                assert usage.completion_tokens == one["usage"]["completion_tokens"]
            if "logprobs" in http:
                wanted = [token["logprob"] for token in one["choices"][0]["logprobs"]["content"]]
                assert [token.logprob for token in whole.choices[0].logprobs] == wanted
            assert whole.request_id.startswith("req-")

    on_a_mesh(tmp_path, body)


def test_texts_and_models(tmp_path: Path) -> None:
    async def body(mesh: LocalMesh, client: MeshClient) -> None:
        request = pb.TextRequest(model="sim", prompts=[pb.Prompt(text="a"), pb.Prompt(text="bc")])
        request.sampling.max_tokens = 6
        whole = await client.text(request)
        assert [choice.text for choice in whole.choices] == [said("a", 6), said("bc", 6)]
        texts = {0: "", 1: ""}
        async for event in client.stream_text(request):
            texts[event.delta.choice] += event.delta.text
        assert list(texts.values()) == [said("a", 6), said("bc", 6)]
        assert await client.models() == ["sim"]

    on_a_mesh(tmp_path, body)


WRONG: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("model", {"model": "gpt-9"}, {"model": "gpt-9"}),
    ("temperature", {"temperature": 3}, {"sampling": {"temperature": 3}}),
    ("n", {"n": 1000}, {"sampling": {"n": 1000}}),
    ("messages", {"messages": []}, {"messages": []}),
    ("context", {"max_tokens": 100_000}, {"sampling": {"max_tokens": 100_000}}),
    ("band", {"priority_band": "nobody"}, {"options": {"priority_band": "nobody"}}),
    ("schema", {"guided_json": {"type": "x"}}, {"form": {"guided_json": '{"type": "x"}'}}),
]


def test_every_error_has_the_same_reason(tmp_path: Path) -> None:
    async def body(mesh: LocalMesh, client: MeshClient) -> None:
        for _, http, grpc_fields in WRONG:
            response = await mesh.post("/v1/chat/completions", {"model": "sim", "messages": HI, **http})
            error = json.loads(await response.read())["error"]
            request = ParseDict({"model": "sim", "messages": PB_HI} | grpc_fields, pb.ChatRequest())
            for call in (client.chat(request), anext(client.stream_chat(request))):
                with pytest.raises(CallFailed) as caught:
                    await call
                assert caught.value.reason == REASON_BY_CODE[error["code"]].name
                assert caught.value.param == (error["param"] or "")
                assert caught.value.request_id.startswith("req-")

    on_a_mesh(tmp_path, body)


def test_a_wrong_key(tmp_path: Path) -> None:
    async def body(mesh: LocalMesh, client: MeshClient) -> None:
        for call in (
            client.chat(pb.ChatRequest()),
            client.models(),
            anext(client.stream_chat(pb.ChatRequest())),
        ):
            with pytest.raises(CallFailed) as caught:
                await call
            assert caught.value.code == grpc.StatusCode.UNAUTHENTICATED
            assert caught.value.reason == "UNAUTHENTICATED"

    on_a_mesh(tmp_path, body, key="em-wrong")


LONG = pb.ChatRequest(model="sim", messages=[user("Hello")], sampling=pb.Sampling(max_tokens=3000))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # an engine tells nobody when it is free
            await asyncio.sleep(0.002)


def busy(mesh: LocalMesh) -> bool:
    return any(rank.engine.sample_load().running for rank in mesh.ranks)


@pytest.mark.parametrize("method", ["stream", "whole"])
def test_a_cancelled_call_frees_its_slot(tmp_path: Path, method: str) -> None:
    async def body(mesh: LocalMesh, client: MeshClient) -> None:
        if method == "stream":
            events = client.stream_chat(LONG)
            for _ in range(5):
                await anext(events)
            await events.aclose()  # pyright: ignore[reportAttributeAccessIssue] # it is a generator
        else:
            call = asyncio.ensure_future(client.chat(LONG))
            await until(lambda: busy(mesh))
            call.cancel()
        await until(lambda: not busy(mesh))

    on_a_mesh(tmp_path, body)


def test_the_calls_deadline_ends_the_work(tmp_path: Path) -> None:
    async def body(mesh: LocalMesh, client: MeshClient) -> None:
        with pytest.raises(CallFailed) as caught:
            await client.chat(LONG)
        assert caught.value.code == grpc.StatusCode.DEADLINE_EXCEEDED
        await until(lambda: not busy(mesh))

    on_a_mesh(tmp_path, body, deadline_s=0.4)


def test_health_and_reflection(tmp_path: Path) -> None:
    async def body(mesh: LocalMesh, client: MeshClient) -> None:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{mesh.gateways[0].grpc_port}") as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            answer = await stub.Check(health_pb2.HealthCheckRequest(service="expertmesh.v1.Inference"))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
            reflect = channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
            call = reflect(iter([b"\x3a\x00"]))  # list_services
            assert b"expertmesh.v1.Inference" in await call.read()

    on_a_mesh(tmp_path, body)
