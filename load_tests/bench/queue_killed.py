"""The queue killed (kill -9) in Ray Serve, under load: does a request notice, and how long is there no queue?

    python -m load_tests.bench.bench_queue killed [--kills N] [--rate REQUESTS_PER_S] [--victim NAME]

Victims in turn: the queue's process, Serve's replica that keeps it, both at once, and all three: both and the standby
that goes on when the process dies. Before each, what died before is back.

`expertmesh run --graph sim` as a user starts it; streams of 40 tokens come open loop, each compared with what the
simulated model must say. Service is back when a stream that came after the kill gets its first token: Serve has seen
the death, started a process, gateway and engines found it, and the grace for their holdings has passed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import statistics
import tempfile
import time
from pathlib import Path

from services.experts.sim_answers import expected_ids
from services.request import SamplingParams
from services.sim_tokenizer import decode, encode
from tests.cluster.stack import Stack

TOKENS = 40
PROCESS, STANDBY, REPLICA = "queue-active", "queue-standby", "ServeReplica:default:PriorityQueue"
"""Two names that `ps -o comm` shows, and a title."""
VICTIMS = {
    "process": (PROCESS,), "replica": (REPLICA,), "process and replica": (PROCESS, REPLICA),
    "process, replica and standby": (PROCESS, REPLICA, STANDBY),
}  # fmt: skip
CALM_S = 3.0


class Ask:
    """One stream. Times are monotonic seconds; 0: it did not happen."""

    def __init__(self, number: int) -> None:
        self.prompt = f"question {number}"
        self.at_s = time.monotonic()
        self.first_s = self.end_s = 0.0
        self.text = ""
        self.error = ""

    async def run(self, port: int, key: str) -> None:
        body = json.dumps(
            {"model": "sim", "prompt": self.prompt, "max_tokens": TOKENS, "stream": True}
        ).encode()
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(
                f"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\n"
                f"cache-control: no-store\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n".encode()
                + body
            )
            async for line in reader:
                if not line.startswith(b"data: {"):
                    continue
                event = json.loads(line[6:])
                if "error" in event:
                    self.error = str(event["error"])
                    return
                self.first_s = self.first_s or time.monotonic()
                self.text += "".join(choice["text"] for choice in event["choices"])
            self.end_s = time.monotonic()
            writer.close()
        except OSError as error:
            self.error = str(error)

    @property
    def right(self) -> bool:
        expected = decode(expected_ids(encode(self.prompt), TOKENS, SamplingParams(TOKENS))).decode()
        return not self.error and self.text == expected


async def until_whole(stack: Stack) -> None:
    """A queue, a standby that is ready and a replica."""
    while any([len(await asyncio.to_thread(stack.pids, name)) != 1 for name in (PROCESS, STANDBY, REPLICA)]):
        await asyncio.sleep(0.2)


async def offer(
    stack: Stack, rate: float, kills: int, victims: list[str]
) -> tuple[list[Ask], dict[str, list[float]]]:
    """All streams, and by victim how long it took until one that came after the kill got its first token."""
    asks: list[Ask] = []
    tasks: set[asyncio.Task[None]] = set()
    gaps: dict[str, list[float]] = {}
    port, key, rng = stack.http_port, stack.key, random.Random(1)

    async def load() -> None:
        while True:
            await asyncio.sleep(rng.expovariate(rate))
            asks.append(Ask(len(asks)))
            tasks.add(asyncio.create_task(asks[-1].run(port, key)))

    loading = asyncio.create_task(load())
    await until_whole(stack)
    await asyncio.sleep(2.0)
    for number in range(kills * len(victims)):
        victim = victims[number % len(victims)]
        pids = [pid for name in VICTIMS[victim] for pid in await asyncio.to_thread(stack.pids, name)]
        killed_s = time.monotonic()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        while not any(ask.first_s and ask.at_s > killed_s for ask in asks):
            await asyncio.sleep(0.01)
        first_s = next(ask.first_s for ask in asks if ask.first_s and ask.at_s > killed_s)
        gaps.setdefault(victim, []).append(first_s - killed_s)
        await until_whole(stack)
        await asyncio.sleep(CALM_S)
    loading.cancel()
    await asyncio.wait(tasks, timeout=60)
    return asks, gaps


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=3, help="of each victim")
    parser.add_argument("--rate", type=float, default=15.0)
    parser.add_argument("--victim", choices=list(VICTIMS), help="only this one")
    told = parser.parse_args(arguments)
    victims = [told.victim] if told.victim else list(VICTIMS)
    with tempfile.TemporaryDirectory() as folder:
        stack = Stack(Path(folder), "expertmesh", "run", "--graph", "sim")
        try:
            stack.wait_ready()
            asks, gaps = asyncio.run(offer(stack, told.rate, told.kills, victims))
        finally:
            stack.stop()
    lost, wrong = sum(bool(a.error) or not a.end_s for a in asks), sum(not a.right for a in asks)
    print(f"kills of each {told.kills}, streams {len(asks)}, lost {lost}, wrong or doubled {wrong}")
    for victim, seen in gaps.items():
        each = ", ".join(f"{gap:.2f}" for gap in seen)
        print(f"{victim} killed, service back after (s): median {statistics.median(seen):.2f} ({each})")
    print(
        f"longest wait for a first token {max(ask.first_s - ask.at_s for ask in asks if ask.first_s):.2f} s"
    )
    for error in sorted({ask.error for ask in asks if ask.error}):
        print("-", error)
