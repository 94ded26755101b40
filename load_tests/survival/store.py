"""The cache's Redis killed, hung, slow, talking garbage, out of memory, while requests come: what do requests pay?

    python -m load_tests.survival store [--rate 40] [--seconds 6]

Gateway, queue, simulated engines, the Cache's authority and a real Valkey, between which a proxy of ours fails on
command (`hung`: takes bytes and answers nothing; `slow`: every answer 50 ms later; `garbage`: random bytes for
answers); `killed` is kill -9 of the Valkey, `out of memory` is its own refusal of writes. The gateway's own tier is
off, so that every request asks the store. Requests come open loop: half are frequent questions, half are new. After
every fault a calm phase, which is what the fault is compared with. Goals: nothing fails, p99 at most 5 ms more,
hits are back within 5 s.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import tempfile
import time
from pathlib import Path

from services.cache.authority import Authority
from services.cache.factory import open_store
from services.gateway import json_key_store
from services.gateway.identity import Permission
from tests.mesh.local_mesh import KEYS, LocalMesh, sim_config

from ..bench.cache_rig import Valkey

FREQUENT = 40
TOKENS = 16
SLOW_S = 0.05
GOAL_MS, GOAL_BACK_S = 5.0, 5.0
FAULTS = ("killed", "hung", "slow", "garbage", "out of memory")


class Proxy:
    """Between the Cache and its store."""

    def __init__(self, port: int) -> None:
        self.to_port, self.mode = port, ""
        self.port = 0
        self._open: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            back_reader, back_writer = await asyncio.open_connection("127.0.0.1", self.to_port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(
            self._copy(reader, back_writer, answers=False), self._copy(back_reader, writer, answers=True)
        )

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool
    ) -> None:
        try:
            while data := await reader.read(65_536):
                if answers and self.mode == "slow":
                    await asyncio.sleep(SLOW_S)
                if answers and self.mode == "garbage":
                    data = random.Random(len(data)).randbytes(len(data))
                if self.mode != "hung":
                    writer.write(data)
        except OSError:
            pass
        finally:
            writer.close()


class Run:
    """Requests, with when they were due and what became of them."""

    def __init__(self, mesh: LocalMesh, rate: float) -> None:
        self.mesh, self.rate = mesh, rate
        self.phase = "warm-up"
        self.rows: list[tuple[str, float, float, str, str]] = []  # phase, due, took, verdict, error
        self._tasks: set[asyncio.Task[None]] = set()

    async def load(self) -> None:
        rng, number, due_s = random.Random(1), 0, time.monotonic()
        while True:
            due_s += rng.expovariate(self.rate)
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            number += 1
            question = f"faq {rng.randrange(FREQUENT)}" if number % 2 else f"new {number}"
            task = asyncio.create_task(self._one(self.phase, question, due_s))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _one(self, phase: str, question: str, due_s: float) -> None:
        body = {"model": "sim", "prompt": question, "max_tokens": TOKENS, "temperature": 0}
        verdict, error = "", ""
        try:
            response = await self.mesh.post("/v1/completions", body)
            data = await response.read()
            verdict = response.headers.get("x-cache", "")
            if response.status != 200:
                error = data.decode()[:200]
        except OSError as problem:
            error = str(problem)
        kind = "faq" if question.startswith("faq") else "new"
        self.rows.append((phase, due_s, time.monotonic() - due_s, f"{kind} {verdict}", error))

    def figures(self, phase: str) -> dict[str, float]:
        """Of one phase: p50 and p99 in ms, share of hits among frequent questions, failures."""
        rows = [row for row in self.rows if row[0] == phase]
        took = sorted(row[2] for row in rows)
        faq = [row[3] for row in rows if row[3].startswith("faq")]
        return {
            "requests": len(rows),
            "failed": sum(bool(row[4]) for row in rows),
            "p50_ms": took[len(took) // 2] * 1e3,
            "p99_ms": took[int(len(took) * 0.99)] * 1e3,
            "hits": sum(verdict == "faq hit" for verdict in faq) / max(1, len(faq)),
        }

    def back_s(self, phase: str, since_s: float) -> float:
        """From the fault's end to the first hit."""
        hits = [row[1] + row[2] for row in self.rows if row[0] == phase and row[3] == "faq hit"]
        return min(hits, default=float("inf")) - since_s


async def set_memory(port: int, *words: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for word in words:
        writer.write(f"CONFIG SET {word}\r\n".encode())
        assert await reader.readline() == b"+OK\r\n"
    writer.close()


async def inject(fault: str, valkey: Valkey, proxy: Proxy, *, begin: bool) -> None:
    match fault:
        case "killed" if begin:
            await asyncio.to_thread(valkey.signal, signal.SIGKILL)
        case "killed":
            await asyncio.to_thread(valkey.again)
        case "out of memory" if begin:
            await set_memory(valkey.port, "maxmemory-policy noeviction", "maxmemory 1mb")
        case "out of memory":
            await set_memory(valkey.port, "maxmemory 0")
        case _:
            proxy.mode = fault if begin else ""


async def run(rate: float, seconds: float) -> tuple[Run, dict[str, float]]:
    valkey, back = Valkey(), {}
    proxy = Proxy(valkey.port)
    await proxy.start()
    cache = {"redis_url": f"redis://127.0.0.1:{proxy.port}", "local_bytes": 0, "store_timeout_s": 0.002}
    with tempfile.TemporaryDirectory() as folder:
        keys_file = Path(folder) / "keys.json"
        json_key_store.add(
            keys_file, KEYS["acme"], key_id="acme", tenant="acme", permissions=(Permission.GENERATE,)
        )
        mesh = LocalMesh(sim_config(keys_file, cache=cache))
        mesh.cache = Authority(await open_store(mesh.config.cache), mesh.config.cache)
        await mesh.start(engines=2)
        loading = Run(mesh, rate)
        task = asyncio.create_task(loading.load())
        await asyncio.sleep(seconds)
        loading.phase = "calm before"
        await asyncio.sleep(seconds)
        for fault in FAULTS:
            loading.phase = fault
            await inject(fault, valkey, proxy, begin=True)
            await asyncio.sleep(seconds)
            await inject(fault, valkey, proxy, begin=False)
            since_s, loading.phase = time.monotonic(), f"after {fault}"
            await asyncio.sleep(max(seconds, GOAL_BACK_S))
            back[fault] = loading.back_s(loading.phase, since_s)
        task.cancel()
        await asyncio.sleep(0.5)
        await mesh.stop()
    valkey.server.stop()
    return loading, back


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        "store", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rate", type=float, default=40.0)
    parser.add_argument("--seconds", type=float, default=6.0, help="per phase")
    told = parser.parse_args(arguments)
    loading, back = asyncio.run(run(told.rate, told.seconds))
    print(
        "| phase | requests | failed | p50 ms | p99 ms | p99 beside calm | hits of frequent questions | back after s |"
    )
    print("|---|---|---|---|---|---|---|---|")
    phases = ["calm before", *(name for fault in FAULTS for name in (fault, f"after {fault}"))]
    good, calm_ms = True, 0.0
    calm = sorted(row[2] for row in loading.rows if row[0] == "calm before" or row[0].startswith("after"))
    calm_ms = calm[int(len(calm) * 0.99)] * 1e3
    for phase in phases:
        seen = loading.figures(phase)
        more_ms = seen["p99_ms"] - calm_ms
        if phase in FAULTS:
            good = good and not seen["failed"] and more_ms <= GOAL_MS and back[phase] <= GOAL_BACK_S
        counts = (
            f"{seen['requests']:.0f} | {seen['failed']:.0f} | {seen['p50_ms']:.1f} | {seen['p99_ms']:.1f}"
        )
        back_in = f"{back[phase]:.2f}" if phase in back else ""
        print(f"| {phase} | {counts} | {more_ms:+.1f} | {seen['hits']:.0%} | {back_in} |")
    print(f"p99 of all calm phases {calm_ms:.1f} ms; goals {'met' if good else 'MISSED'}")
    for error in sorted({row[4] for row in loading.rows if row[4]})[:5]:
        print("-", error)
    return 0 if good else 1
