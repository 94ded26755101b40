"""The gRPC server on a loopback port, with a scripted pipeline behind it: wire, errors, cancellation,
health."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.answer import AnswerHead, AnswerTail, Delta
from services.api._generated.expertmesh.v1 import inference_pb2 as pb
from services.clock import VirtualClock
from services.config import GatewayConfig, LimitsConfig
from services.errors import ConfigError, OverloadError
from services.gateway.grpc_responders import StreamResponder
from services.gateway.grpc_server import GrpcServer
from services.gateway.identity import Identity, KeyRecord, digest_key
from services.gateway.readiness import Readiness
from services.outcome import Reason
from services.request import Usage

KEY = (("authorization", "Bearer em-key"), ("x-request-id", "mine"))
CHAT = pb.ChatRequest(model="m", messages=[pb.Message(role=pb.ROLE_USER, content="hi")])
PATH = "/expertmesh.v1.Inference/"
HEAD, TAIL = AnswerHead("mine", "m", 5), AnswerTail(Usage(3, 2))


class FakeMesh:
    """As much of a Mesh as the server itself looks at."""

    audit = None
    started_unix_s = 5

    def __init__(self) -> None:
        self.config = GatewayConfig(limits=LimitsConfig(max_body_bytes=10_000))
        self.clock = VirtualClock()
        self.readiness = Readiness()
        self.verdict = lambda: self.readiness.verdict(self.clock.now_s())
        self.identity = Identity(b"p", [KeyRecord("k", digest_key(b"p", "em-key"), "tenant")])

    async def models_for(self, principal: object) -> tuple[str, ...]:
        return ("m",)

    def new_request_id(self) -> str:
        return "made"


async def answering(mesh: Any, call: Any) -> None:
    """A pipeline that says two words."""
    responder = call.responder(await call.read())
    responder.begin(HEAD)
    for delta in (Delta(0, "a"), Delta(0, "b", "stop")):
        responder.delta(delta)
    responder.end(TAIL)


def serving(serve: Any, body: Callable[[grpc.aio.Channel, FakeMesh, GrpcServer], Awaitable[None]]) -> None:
    """Run `body` against a server whose pipeline is `serve`."""

    async def run() -> None:
        mesh: Any = FakeMesh()
        server = GrpcServer(mesh, serve, embed=serve)
        port = await server.start("127.0.0.1", 0, reuse_port=False)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            await asyncio.wait_for(body(channel, mesh, server), 20)
        await server.stop(0)

    asyncio.run(run())


async def unary(channel: Any, method: str, message: Any, reply: Any, **options: Any) -> Any:
    call = channel.unary_unary(PATH + method, lambda m: m.SerializeToString(), reply.FromString)
    return await call(message, metadata=KEY, **options)


def stream(channel: Any, method: str, message: Any, **options: Any) -> Any:
    call = channel.unary_stream(PATH + method, lambda m: m.SerializeToString(), pb.StreamEvent.FromString)
    return call(message, metadata=KEY, **options)


def info_of(error: grpc.aio.AioRpcError) -> ErrorInfo:
    trailers = dict(error.trailing_metadata())
    assert trailers["x-request-id"] in ("mine", "made")
    info = ErrorInfo()
    assert Status.FromString(trailers["grpc-status-details-bin"]).details[0].Unpack(info)
    return info


def test_whole_and_streamed_answers() -> None:
    async def body(channel: Any, mesh: FakeMesh, server: GrpcServer) -> None:
        whole = await unary(channel, "GenerateChat", CHAT, pb.ChatResponse)
        assert whole.choices[0].content == "ab"
        assert whole.usage.total_tokens == 5
        text = pb.TextRequest(model="m", prompts=[pb.Prompt(text="a")])
        assert (await unary(channel, "GenerateText", text, pb.TextResponse)).choices[0].text == "ab"
        for method, message in (("StreamChat", CHAT), ("StreamText", text)):
            events = [event async for event in stream(channel, method, message)]
            assert events[0].begin.request_id == "mine"
            assert "".join(event.delta.text for event in events) == "ab"
            assert events[-1].end.usage.completion_tokens == 2
        listed = await unary(channel, "ListModels", pb.ListModelsRequest(), pb.ListModelsResponse)
        assert [model.id for model in listed.models] == ["m"]

    serving(answering, body)


def test_errors_carry_their_reason() -> None:
    async def failing(mesh: Any, call: Any) -> None:
        call.fail(OverloadError(Reason.SHED, "busy", retry_after_s=2.0))

    async def body(channel: Any, mesh: FakeMesh, server: GrpcServer) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as whole:
            await unary(channel, "GenerateChat", CHAT, pb.ChatResponse)
        with pytest.raises(grpc.aio.AioRpcError) as streamed:
            _ = [event async for event in stream(channel, "StreamChat", CHAT)]
        with pytest.raises(grpc.aio.AioRpcError) as embed:
            await unary(channel, "Embed", pb.EmbedRequest(), pb.EmbedResponse)
        for error in (whole.value, streamed.value, embed.value):
            assert error.code() == grpc.StatusCode.UNAVAILABLE
            assert info_of(error).reason == "SHED"
        listing = channel.unary_unary(PATH + "ListModels")
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await listing(b"")
        assert unknown.value.code() == grpc.StatusCode.UNAUTHENTICATED

    serving(failing, body)


def test_an_error_after_the_first_words() -> None:
    async def breaking(mesh: Any, call: Any) -> None:
        responder = call.responder(await call.read())
        responder.begin(HEAD)
        responder.delta(Delta(0, "a"))
        responder.fail(OverloadError(Reason.ENGINE_LOST, "gone"))

    async def body(channel: Any, mesh: FakeMesh, server: GrpcServer) -> None:
        seen: list[Any] = []

        async def read() -> None:
            async for event in stream(channel, "StreamChat", CHAT):
                seen.append(event)

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await read()
        assert [event.WhichOneof("event") for event in seen] == ["begin", "delta"]
        assert info_of(caught.value).reason == "ENGINE_LOST"

    serving(breaking, body)


@pytest.mark.parametrize("method", ["GenerateChat", "StreamChat"])
@pytest.mark.parametrize("how", ["cancel", "deadline"])
def test_a_client_that_goes_frees_its_slot(method: str, how: str) -> None:
    started, freed = asyncio.Event(), asyncio.Event()
    deadlines: list[float | None] = []

    async def hanging(mesh: Any, call: Any) -> None:
        deadlines.append((await call.read()).deadline_s)
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            freed.set()

    async def body(channel: Any, mesh: FakeMesh, server: GrpcServer) -> None:
        serializer = CHAT.SerializeToString()
        multi = channel.unary_unary if method == "GenerateChat" else channel.unary_stream
        call = multi(PATH + method)(serializer, metadata=KEY, timeout=0.3 if how == "deadline" else None)
        await started.wait()
        if how == "cancel":
            call.cancel()
            assert deadlines == [None]
        else:
            assert deadlines[0] is not None
            assert 0 < deadlines[0] <= 0.31, "on the wire it is rounded up"
        await freed.wait()

    serving(hanging, body)


def test_what_does_not_decode_is_the_clients_fault() -> None:
    async def reading(mesh: Any, call: Any) -> None:
        try:
            await call.read()
        except OverloadError:
            raise
        except Exception as error:
            call.fail(error)

    async def body(channel: Any, mesh: FakeMesh, server: GrpcServer) -> None:
        raw = channel.unary_unary(PATH + "GenerateChat")
        for data, code, reason in (
            (b"\xff", grpc.StatusCode.INVALID_ARGUMENT, "INVALID_JSON"),
            (b"\x0a\x01\xff", grpc.StatusCode.INVALID_ARGUMENT, "INVALID_JSON"),
            (b"", grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD"),
            (b"\x0a" * 11_000, grpc.StatusCode.RESOURCE_EXHAUSTED, "BODY_TOO_LARGE"),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await raw(data, metadata=KEY)
            assert caught.value.code() == code
            assert info_of(caught.value).reason == reason
        with pytest.raises(grpc.aio.AioRpcError) as huge:
            await raw(b"\x0a" * 200_000, metadata=KEY)
        assert huge.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        with pytest.raises(grpc.aio.AioRpcError) as metadata:
            await raw(b"", metadata=(("x", "y" * 20_000),))
        assert metadata.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED

    serving(reading, body)


def test_health_is_what_readiness_says() -> None:
    async def body(channel: Any, mesh: FakeMesh, server: GrpcServer) -> None:
        health = health_pb2_grpc.HealthStub(channel)
        serving_now = health_pb2.HealthCheckResponse.SERVING
        not_serving = health_pb2.HealthCheckResponse.NOT_SERVING

        async def status(service: str = "expertmesh.v1.Inference") -> Any:
            return (await health.Check(health_pb2.HealthCheckRequest(service=service))).status

        assert await status() == not_serving
        mesh.readiness.proven(mesh.clock.now_s())
        assert await status() == await status("") == serving_now
        watch = health.Watch(health_pb2.HealthCheckRequest(service=""))
        assert (await watch.read()).status == serving_now
        mesh.clock.advance(60)
        assert await status() == not_serving
        assert (await watch.read()).status == not_serving
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await status("none")
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND

    serving(answering, body)


def test_a_taken_port_is_one_clear_error() -> None:
    async def run() -> None:
        mesh: Any = FakeMesh()
        first, second = GrpcServer(mesh, answering), GrpcServer(mesh, answering)
        port = await first.start("127.0.0.1", 0, reuse_port=False)
        with pytest.raises(ConfigError):
            await second.start("127.0.0.1", port, reuse_port=False)
        await first.stop(0)

    asyncio.run(run())


def test_a_slow_reader_is_counted_and_its_deltas_are_merged() -> None:
    async def run() -> None:
        written: list[pb.StreamEvent] = []
        window = asyncio.Event()

        async def write(event: bytes) -> None:
            written.append(pb.StreamEvent.FromString(event))
            await window.wait()

        responder = StreamResponder()
        writing = asyncio.ensure_future(responder.write_to(write))
        responder.begin(HEAD)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for _ in range(100):
            responder.delta(Delta(0, "x" * 1000))
            responder.delta(Delta(1, "y"))
        assert 100_000 < responder.buffered_bytes < 120_000
        responder.delta(Delta(0, "", "stop"))
        responder.end(TAIL)
        responder.close()
        window.set()
        await writing
        assert [event.WhichOneof("event") for event in written] == ["begin", "delta", "delta", "end"]
        assert [len(event.delta.text) for event in written[1:3]] == [100_000, 100]
        assert written[1].delta.finish_reason == pb.FINISH_REASON_STOP
        assert responder.buffered_bytes == 0

    asyncio.run(run())
