"""Plain Ray Serve apps that stream tokens, to hold the mesh against: what one gets without our design.

    /one   one deployment streams its own tokens             (direct ingress where HAProxy is on)
    /two   ingress → engine, tokens come over the handle
    /four  ingress → step → step → engine, the mesh's shape with tokens over handles

`python -m load_tests.bench.serve_apps PORT STEP_S`; RAY_SERVE_* of the environment choose the proxy. Prints "ready".
"""

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from typing import Any

import ray
from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

EVENT = (
    b'data: {"id":"cmpl-mock","object":"text_completion","created":1,"model":"sim",'
    b'"choices":[{"index":0,"text":"bab ","logprobs":null,"finish_reason":null}]}\n\n'
)
OPTIONS: dict[str, Any] = {"max_ongoing_requests": 2000, "ray_actor_options": {"num_cpus": 0}}


async def paced(num_tokens: int, step_s: float) -> AsyncIterator[bytes]:
    start_s = time.monotonic()
    for number in range(num_tokens):
        if step_s:
            await asyncio.sleep(max(0.0, start_s + (number + 1) * step_s - time.monotonic()))
        yield EVENT


@serve.deployment(**OPTIONS)
class Engine:
    def __init__(self, step_s: float) -> None:
        self.step_s = step_s

    async def stream(self, num_tokens: int) -> AsyncIterator[bytes]:
        async for event in paced(num_tokens, self.step_s):
            yield event

    async def whole(self, prompt: str, num_tokens: int) -> str:
        return "bab " * num_tokens


@serve.deployment(**OPTIONS)
class Step:
    def __init__(self, inner: DeploymentHandle[Any]) -> None:
        self.inner = inner

    async def stream(self, num_tokens: int) -> AsyncIterator[bytes]:
        tokens: Any = self.inner.options(stream=True).stream.remote(num_tokens)
        async for event in tokens:
            yield event

    async def whole(self, prompt: str, num_tokens: int) -> str:
        return await self.inner.whole.remote(prompt, num_tokens)


async def respond(request: Request, stream: Any, whole: Any) -> Response:
    body = await request.json()
    if body.get("stream"):

        async def events() -> AsyncIterator[bytes]:
            async for event in stream(body["max_tokens"]):
                yield event
            yield b"data: [DONE]\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")
    text = await whole(body["prompt"], body["max_tokens"])
    answer = {"object": "text_completion", "choices": [{"index": 0, "text": text, "finish_reason": "length"}]}
    return Response(json.dumps(answer), media_type="application/json")


@serve.deployment(**OPTIONS)
class Ingress:
    def __init__(self, inner: DeploymentHandle[Any]) -> None:
        self.inner = inner

    async def __call__(self, request: Request) -> Response:
        return await respond(request, self.inner.options(stream=True).stream.remote, self.inner.whole.remote)


@serve.deployment(**OPTIONS)
class One:
    def __init__(self, step_s: float) -> None:
        self.step_s = step_s

    async def __call__(self, request: Request) -> Response:
        async def whole(prompt: str, num_tokens: int) -> str:
            return "bab " * num_tokens

        def stream(num_tokens: int) -> AsyncIterator[bytes]:
            return paced(num_tokens, self.step_s)

        return await respond(request, stream, whole)


def main(port: int, step_s: float) -> None:
    with tempfile.TemporaryDirectory(prefix="bs-") as folder:
        ray.init(address="local", num_cpus=2, _temp_dir=folder, include_dashboard=False, log_to_driver=False)
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve.run(One.bind(step_s), name="one", route_prefix="/one")
        serve.run(Ingress.bind(Engine.bind(step_s)), name="two", route_prefix="/two")
        serve.run(Ingress.bind(Step.bind(Step.bind(Engine.bind(step_s)))), name="four", route_prefix="/four")
        print("ready", flush=True)
        try:
            sys.stdin.read()
        finally:
            serve.shutdown()
            ray.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
