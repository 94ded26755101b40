"""What a stream costs in the gateway's memory: idle (a kept-alive connection that had an answer) and active.

    python -m load_tests.bench.bench_stream_memory --streams 2000

Proportional set size of the gateway's process (/proc/PID/smaps_rollup) before, with N idle connections, and with N
streams that all run; rounds in one process each, since an allocator does not give back what it had once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import uvloop

from .mesh_processes import KEY, Rig, start
from .processes import Group

HEAD = f"POST /v1/completions HTTP/1.1\r\nhost: b\r\nauthorization: Bearer {KEY}\r\n"
LOOK_AGAIN_S = 0.25


def pss_bytes(pid: int) -> int:
    """Proportional set size now."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"process {pid} has no Pss")


def request(number: int, tokens: int, *, stream: bool) -> bytes:
    body = json.dumps(
        {
            "model": "sim", "prompt": f"stream {number} ".ljust(1024, "x"), "max_tokens": tokens, "stream": stream,
            "temperature": 1.0, "ignore_eos": True,
        }
    )  # fmt: skip
    return f"{HEAD}content-length: {len(body)}\r\n\r\n{body}".encode()


class Client(asyncio.Protocol):
    """A connection; counts what it gets and keeps nothing."""

    def __init__(self) -> None:
        self.num_bytes = 0
        self.events = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self.num_bytes += len(data)
        self.events += data.count(b'"text"')


async def connected(port: int, streams: int) -> list[Client]:
    loop, clients = asyncio.get_running_loop(), list[Client]()
    for _ in range(streams):
        clients.append((await loop.create_connection(Client, "127.0.0.1", port))[1])
    return clients


async def measure(rig: Rig, streams: int, kind: str) -> float:
    """Bytes per stream."""
    warm = await connected(rig.http_port, 20)
    for number, client in enumerate(warm):
        client.transport.write(request(number, 2, stream=True))
    await until(lambda: all(client.events >= 2 for client in warm))
    before = pss_bytes(rig.gateway_pid)
    clients = await connected(rig.http_port, streams)
    if kind == "idle":
        for at in range(0, streams, 100):
            some = clients[at : at + 100]
            for number, client in enumerate(some, at):
                client.transport.write(request(number, 1, stream=False))
            await until(partial(answered, some))
    else:
        for number, client in enumerate(clients):
            client.transport.write(request(number, 400, stream=True))
        await until(lambda: all(client.events >= 3 for client in clients))
    after = pss_bytes(rig.gateway_pid)
    for client in (*clients, *warm):
        client.transport.abort()
    return (after - before) / streams


def answered(clients: list[Client]) -> bool:
    return all(client.num_bytes for client in clients)


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(120):
        while not done():
            await asyncio.sleep(LOOK_AGAIN_S)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--streams", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    found: dict[str, list[float]] = {"idle": [], "active": []}
    for _ in range(args.rounds):
        for kind in found:
            group = Group()
            with tempfile.TemporaryDirectory(prefix="memory-") as folder:
                try:
                    rig = start(
                        group, Path(folder), Path(folder) / "log",
                        experts={"sim_step_s": 0.25, "max_num_seqs": 2000, "sim_kv_tokens": 4_000_000},
                        limits={"header_timeout_s": 300.0, "idle_timeout_s": 300.0},
                    )  # fmt: skip
                    found[kind].append(uvloop.run(measure(rig, args.streams, kind)))
                finally:
                    group.stop()
    print(f"{args.streams} streams, {args.rounds} rounds, bytes per stream, median (range):")
    for kind, values in found.items():
        print(f"{kind:7} {statistics.median(values):8,.0f} ({min(values):,.0f}–{max(values):,.0f})")


if __name__ == "__main__":
    main()
