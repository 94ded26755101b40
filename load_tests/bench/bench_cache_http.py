"""What the response cache costs and gives through HTTP: hits per second, and what a miss adds to a request.

A gateway in a process of its own (mesh_processes), raw sockets here. A miss is paired with the same request under
`Cache-Control: no-store`, which is looked up nowhere: what it adds is the difference of their times to the first byte
of a streamed answer. Both kinds alternate request by request, so that the host's moods hit both. Queue, Cache and
engines share one process of that rig, so that what one of them does for a look-up the others wait for.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from load_tests.bench.mesh_processes import KEY, start
from load_tests.bench.processes import Group, cpu_s, tree

Row = tuple[str, str, str]
LANES = 8
TOKENS = 16


def request(prompt: str, *, kept: bool = True, stream: bool = False) -> bytes:
    """One request at temperature 0."""
    wish = {"model": "sim", "prompt": prompt, "max_tokens": TOKENS, "temperature": 0, "stream": stream}
    body = json.dumps(wish).encode()
    control = "" if kept else "cache-control: no-store\r\n"
    return (
        f"POST /v1/completions HTTP/1.1\r\nhost: b\r\ncontent-type: application/json\r\n{control}"
        f"authorization: Bearer {KEY}\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode() + body


class Lane(asyncio.Protocol):
    """One kept-alive connection; one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self.first_s = 0.0
        self._seen = b""
        self._whole = 0
        self._answer: asyncio.Future[str] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]

    async def ask(self, raw: bytes) -> str:
        """The x-cache header of the answer, which is complete; its first byte came at `first_s` (perf_counter)."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(raw)
        return await self._answer

    def data_received(self, data: bytes) -> None:
        if not self._seen:
            self.first_s = time.perf_counter()
        self._seen += data
        if not self._whole:
            end = self._seen.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self._seen[:end].lower()
            at = head.find(b"content-length:") + 15
            self._whole = end + 4 + int(head[at:].split(b"\r\n", 1)[0]) if at > 14 else -1
        if len(self._seen) < self._whole or (self._whole < 0 and not self._seen.endswith(b"0\r\n\r\n")):
            return
        head = self._seen.split(b"\r\n\r\n", 1)[0].lower()
        ok = head.startswith(b"http/1.1 200")
        verdict = head.split(b"x-cache:", 1)[1].split(b"\r\n", 1)[0].strip().decode() if ok else "failed"
        self._seen, self._whole = b"", 0
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(verdict)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError("the gateway hung up"))


async def lane(port: int) -> Lane:
    _, made = await asyncio.get_running_loop().create_connection(Lane, "127.0.0.1", port)
    return made


async def hits(port: int, gateway: Sequence[int], seconds: float) -> list[Row]:
    """Closed loop over 200 kept answers."""
    lanes = [await lane(port) for _ in range(LANES)]
    raw = [request(f"question {number}".ljust(256, "?")) for number in range(200)]
    for each in raw:
        await lanes[0].ask(each)
    counts: dict[str, int] = {}
    until = time.perf_counter() + seconds

    async def ask(own: Lane, number: int) -> None:
        while time.perf_counter() < until:
            number += 1
            verdict = await own.ask(raw[number % 200])
            counts[verdict] = counts.get(verdict, 0) + 1

    before = cpu_s(gateway)
    await asyncio.gather(*(ask(own, 31 * number) for number, own in enumerate(lanes)))
    cpu_us = (cpu_s(gateway) - before) / max(1, counts.get("hit", 0)) * 1e6
    told = f"{counts.get('hit', 0) / seconds:,.0f} ({counts})"
    return [
        ("HTTP: hits per second, one gateway, 8 connections", told, "≥ 5,000"),
        ("HTTP: CPU of the gateway per hit: hits one core serves", f"{cpu_us:.0f} µs: {1e6 / cpu_us:,.0f}", "≥ 5,000"),
    ]  # fmt: skip


async def misses(port: int, num: int, rounds: int) -> list[Row]:
    """`num` pairs a round, one after another; each prompt is new."""
    own = await lane(port)
    added: list[tuple[float, float]] = []
    number = 0
    for _ in range(rounds):
        taken: dict[bool, list[float]] = {True: [], False: []}
        for _ in range(num):
            for kept in (True, False) if number % 2 else (False, True):
                raw = request(f"{number} {kept}".ljust(256, "."), kept=kept, stream=True)
                begin = time.perf_counter()
                verdict = await own.ask(raw)
                taken[kept].append((own.first_s - begin) * 1e6)
                assert verdict in (("miss", "bypass") if kept else ("bypass",)), verdict
            number += 1
        low, high = ({k: sorted(v)[int(q * num)] for k, v in taken.items()} for q in (0.5, 0.99))
        added.append((low[True] - low[False], high[True] - high[False]))
    p50, p99 = [low for low, _ in added], [high for _, high in added]
    told = f"p50 {spread(p50)} · p99 {spread(p99)}"
    return [("HTTP: what a miss adds until the first byte, beside no-store", told, "p99 ≤ 0.3 ms")]


def spread(values: list[float]) -> str:
    """Median over rounds, and the range."""
    return f"{statistics.median(values):.0f} µs ({min(values):.0f} to {max(values):.0f})"


async def through_http(num: int, rounds: int, seconds: float) -> list[Row]:
    """All of it, on a rig of its own."""
    with tempfile.TemporaryDirectory(prefix="em-bench-") as name:
        folder, group = Path(name), Group()
        try:
            rig = start(
                group,
                folder,
                folder / "log",
                experts={"sim_step_s": 0.0005},
                cache={"store_timeout_s": 0.002},
            )
            rows = await misses(rig.http_port, num, rounds)
            return await hits(rig.http_port, tree(rig.gateway_pid), seconds) + rows
        finally:
            group.stop()
