"""One token's way over a link: asyncio + msgspec frames beside a grpc.aio bidirectional stream.

Both carry the same frames (one per engine step, all streams of a gateway in it) between two processes on loopback.
Paced: 300 streams, one step every 20 ms. Unpaced: as fast as the reader takes them. Arms alternate; CPU time is
read from /proc for both processes. Run: `python -m load_tests.bench.bench_link` (docs/adr/0003 quotes it).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator

import uvloop

from services.link.asyncio_link import Link, LinkServer, connect
from services.link.frames import decode_payload, encode_frame
from services.link.messages import Abort, AnyMessage
from services.request import TokenFrame

KEY = b"bench"
STREAMS = 300


def frames(step: int) -> list[TokenFrame]:
    """What one engine step sends."""
    return [TokenFrame(stream, (step & 0xFFFF,), index=step) for stream in range(STREAMS)]


def cpu_s(pid: int) -> float:
    """User and system seconds of a process."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Steps:
    """Sends `count` steps, `pace_s` apart (0: one per turn of the loop)."""

    def __init__(self, count: int, pace_s: float) -> None:
        self.count, self.pace_s = count, pace_s

    async def __aiter__(self) -> AsyncIterator[list[TokenFrame]]:
        start_s = time.monotonic()
        for step in range(self.count):
            yield frames(step)
            await asyncio.sleep(
                max(0.0, start_s + (step + 1) * self.pace_s - time.monotonic()) if self.pace_s else 0
            )


class AsyncioEngine:
    """Starts sending when the gateway says so."""

    def __init__(self, steps: Steps) -> None:
        self.steps = steps

    def link_up(self, link: Link) -> None: ...
    def link_down(self, link: Link, why: str) -> None: ...

    def link_message(self, link: Link, message: AnyMessage) -> None:
        self.task = asyncio.create_task(self.send(link))

    async def send(self, link: Link) -> None:
        async for messages in self.steps:
            for message in messages:
                link.send(message)


class AsyncioGateway:
    """Counts what arrives."""

    def __init__(self, expected: int) -> None:
        self.left = expected
        self.done = asyncio.get_running_loop().create_future()

    def link_up(self, link: Link) -> None: ...
    def link_down(self, link: Link, why: str) -> None: ...

    def link_message(self, link: Link, message: AnyMessage) -> None:
        self.left -= 1
        if self.left == 0:
            self.done.set_result(None)


async def asyncio_engine(steps: Steps) -> None:
    server = LinkServer(AsyncioEngine(steps), KEY)
    print(await server.start(), flush=True)
    await asyncio.sleep(3600)


async def asyncio_gateway(address: str, steps: Steps) -> None:
    handler = AsyncioGateway(steps.count * STREAMS)
    link = await connect(address, KEY, handler, "bench")
    link.send(Abort(0))
    await handler.done


async def grpc_engine(steps: Steps) -> None:
    import grpc

    async def stream(requests: AsyncIterator[bytes], context: object) -> AsyncIterator[bytes]:
        async for _ in requests:
            break
        async for messages in steps:
            yield encode_frame(messages)[4:]

    handler = grpc.method_handlers_generic_handler(
        "bench", {"Link": grpc.stream_stream_rpc_method_handler(stream)}
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await asyncio.sleep(3600)


async def grpc_gateway(address: str, steps: Steps) -> None:
    import grpc

    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.stream_stream("/bench/Link")()
        await call.write(b"go")
        left = steps.count * STREAMS
        async for payload in call:
            left -= len(decode_payload(payload))
            if left == 0:
                return


def one_round(arm: str, count: int, pace_s: float) -> tuple[float, float]:
    """CPU µs per token (both sides) and tokens per second."""
    command = [
        sys.executable,
        "-m",
        "load_tests.bench.bench_link",
        "--engine",
        arm,
        "--steps",
        str(count),
        "--pace",
        str(pace_s),
    ]
    engine = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert engine.stdout is not None
        address = engine.stdout.readline().strip()
        steps = Steps(count, pace_s)
        before = cpu_s(engine.pid) + cpu_s(os.getpid())
        start_s = time.perf_counter()
        uvloop.run((asyncio_gateway if arm == "asyncio" else grpc_gateway)(address, steps))
        wall_s = time.perf_counter() - start_s
        tokens = count * STREAMS
        return (cpu_s(engine.pid) + cpu_s(os.getpid()) - before) / tokens * 1e6, tokens / wall_s
    finally:
        engine.kill()
        engine.wait()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--engine", choices=["asyncio", "grpc"])
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--pace", type=float, default=0.0)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    if args.engine:
        uvloop.run(
            (asyncio_engine if args.engine == "asyncio" else grpc_engine)(Steps(args.steps, args.pace))
        )
        return
    print(f"{'case':10} {'link':8} {'CPU µs per token':>28} {'tokens/s':>12}")
    for case, count, pace_s in (("paced", 250, 0.02), ("unpaced", 1000, 0.0)):
        results: dict[str, list[tuple[float, float]]] = {"asyncio": [], "grpc": []}
        for _ in range(args.rounds):
            for arm, rows in results.items():
                rows.append(one_round(arm, count, pace_s))
        for arm, rows in results.items():
            costs = sorted(cost for cost, _ in rows)
            rate = statistics.median(rate for _, rate in rows)
            print(
                f"{case:10} {arm:8} {statistics.median(costs):10.2f} ({costs[0]:.2f}–{costs[-1]:.2f}) {rate:14,.0f}"
            )


if __name__ == "__main__":
    main()
