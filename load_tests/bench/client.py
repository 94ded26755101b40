"""The load of the gateway benchmark: one process, raw sockets, next to no work per token.

`streams`: `concurrency` streams at a time, started evenly over one answer's length, each replaced when it ends (the
steady state is what is measured). `open`: streams at Poisson arrivals, TTFT counted from the *scheduled* send time.
`unary`: closed loop over kept-alive connections. `calls`: whole answers at Poisson arrivals over `concurrency`
connections that are kept, latency counted from the scheduled send time too; who finds all busy waits for one. Timers
are of whole ms, which is part of what is counted. Prints one JSON object; times are of CLOCK_MONOTONIC, in seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from collections import deque
from collections.abc import Callable

import uvloop

BUCKET_S = 0.05


class Load:
    """What happened, and how requests look."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.seed = random.Random(args.seed)
        self.tokens: dict[int, int] = {}
        self.done: dict[int, int] = {}
        self.ttft_s: list[float] = []
        self.gaps_s: list[float] = []
        self.latency_s: list[float] = []
        self.failed = 0
        self.number = 0

    def request(self, stream: bool) -> bytes:
        self.number += 1
        prompt = f"{self.args.seed}-{self.number} ".ljust(self.args.prompt_bytes, "x")
        body = json.dumps(
            {
                "model": "sim",
                "prompt": prompt,
                "max_tokens": self.args.tokens,
                "stream": stream,
                "temperature": self.args.temperature,
            }
        ).encode()
        lines = (
            f"POST {self.args.path} HTTP/1.1",
            "host: b",
            "content-type: application/json",
            f"authorization: Bearer {self.args.key}",
            f"content-length: {len(body)}",
        )
        head = "\r\n".join(lines) + "\r\n\r\n"
        return head.encode() + body

    def count(self, counts: dict[int, int], number: int, now_s: float) -> None:
        bucket = int(now_s / BUCKET_S)
        counts[bucket] = counts.get(bucket, 0) + number


class Stream(asyncio.Protocol):
    """One streamed answer on a connection of its own."""

    def __init__(self, load: Load, scheduled_s: float, ended: Callable[[], None]) -> None:
        self.load, self.scheduled_s, self.ended = load, scheduled_s, ended
        self.last_s = 0.0
        self.complete = False
        self.tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.transport.write(self.load.request(True))

    def data_received(self, data: bytes) -> None:
        now_s = time.monotonic()
        events = data.count(b'"text":')
        if events:
            self.load.count(self.load.tokens, events, now_s)
            if self.last_s:
                self.load.gaps_s.append(now_s - self.last_s)
            else:
                self.load.ttft_s.append(now_s - self.scheduled_s)
            self.last_s = now_s
        self.tail = (self.tail + data)[-32:]
        if self.tail.endswith(b"0\r\n\r\n"):
            self.complete = True
            self.load.count(self.load.done, 1, now_s)
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.load.failed += not (self.complete and self.last_s)
        self.ended()


class Unary(asyncio.Protocol):
    """Requests one after another on one connection."""

    def __init__(self, load: Load, until_s: float, ended: asyncio.Future[None]) -> None:
        self.load, self.until_s, self.ended = load, until_s, ended
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.next(time.monotonic())

    def send(self, scheduled_s: float) -> None:
        self.sent_s = scheduled_s
        self.transport.write(self.load.request(False))

    def next(self, now_s: float) -> None:
        """The connection is free."""
        if now_s < self.until_s:
            self.send(time.monotonic())
        else:
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        at = self.buffer.find(b"\r\n\r\n")
        if at < 0:
            return
        head = self.buffer[:at].lower()
        if b"transfer-encoding: chunked" in head:
            whole = self.buffer.endswith(b"0\r\n\r\n")
        else:
            whole = len(self.buffer) >= at + 4 + int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        if not whole:
            return
        now_s = time.monotonic()
        self.load.failed += not self.buffer.startswith(b"HTTP/1.1 200")
        self.buffer = b""
        self.load.latency_s.append(now_s - self.sent_s)
        self.load.count(self.load.done, 1, now_s)
        self.next(now_s)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


class Calls:
    """Requests of an open loop, and the connections that take them."""

    def __init__(self) -> None:
        self.due: deque[float] = deque()
        self.idle: list[Call] = []

    def arrive(self, scheduled_s: float) -> None:
        """A request is due: on a connection that is idle, or on the first that will be."""
        if self.idle:
            self.idle.pop().send(scheduled_s)
        else:
            self.due.append(scheduled_s)


class Call(Unary):
    """A connection of an open loop."""

    def __init__(self, load: Load, calls: Calls, ended: asyncio.Future[None]) -> None:
        super().__init__(load, 0.0, ended)
        self.calls = calls

    def next(self, now_s: float) -> None:
        if self.calls.due:
            self.send(self.calls.due.popleft())
        else:
            self.calls.idle.append(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self in self.calls.idle:
            self.calls.idle.remove(self)
        else:
            self.load.failed += 1
        super().connection_lost(exc)


async def run(args: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    load = Load(args)
    start_s = time.monotonic()
    until_s = start_s + args.seconds
    open_streams: set[asyncio.Future[None]] = set()

    async def stream(scheduled_s: float) -> None:
        ended: asyncio.Future[None] = loop.create_future()
        open_streams.add(ended)

        def end() -> None:
            if not ended.done():
                ended.set_result(None)

        try:
            await loop.create_connection(lambda: Stream(load, scheduled_s, end), args.host, args.port)
            await ended
        except OSError:
            load.failed += 1
        open_streams.discard(ended)

    async def lane(delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        while time.monotonic() < until_s:
            await stream(time.monotonic())

    if args.mode == "streams":
        await asyncio.gather(*(lane(args.ramp * i / args.concurrency) for i in range(args.concurrency)))
    elif args.mode == "calls":
        calls, ends = Calls(), list[asyncio.Future[None]]()
        for _ in range(args.concurrency):
            ends.append(loop.create_future())
            await loop.create_connection(lambda: Call(load, calls, ends[-1]), args.host, args.port)
        due_s = time.monotonic()  # not before all are connected: who is late by that would be the p99
        until_s = due_s + args.seconds
        while due_s < until_s:
            due_s += load.seed.expovariate(args.rate)
            if (early_s := due_s - time.monotonic()) > 0:
                await asyncio.sleep(early_s)
            calls.arrive(min(due_s, time.monotonic()))  # a timer may be early
        while len(calls.idle) < sum(not end.done() for end in ends):
            await asyncio.sleep(0.05)
        load.failed += len(calls.due)  # nobody was left to take them
    elif args.mode == "open":
        tasks, due_s = [], start_s
        while due_s < until_s:
            due_s += load.seed.expovariate(args.rate)
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            tasks.append(asyncio.create_task(stream(due_s)))
        await asyncio.gather(*tasks)
    else:
        futures = []
        for _ in range(args.concurrency):
            futures.append(loop.create_future())
            await loop.create_connection(lambda: Unary(load, until_s, futures[-1]), args.host, args.port)
        await asyncio.gather(*futures)
    print(
        json.dumps(
            {
                "bucket_s": BUCKET_S,
                "tokens": load.tokens,
                "done": load.done,
                "ttft_s": load.ttft_s,
                "gaps_s": load.gaps_s[:: max(1, len(load.gaps_s) // 50_000)],
                "latency_s": load.latency_s,
                "failed": load.failed,
            }
        )
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--mode", choices=["streams", "open", "unary", "calls"], required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", default="/v1/completions")
    parser.add_argument("--key", default="none")
    parser.add_argument("--concurrency", type=int, default=1)
    parser.add_argument("--rate", type=float, default=1.0)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--prompt-bytes", type=int, default=1024)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--ramp", type=float, default=1.0)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=1)
    uvloop.run(run(parser.parse_args()))
