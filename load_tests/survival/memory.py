"""What a request leaves in a gateway's memory: hours of the soak's load in two minutes.

    python -m load_tests.survival memory [--requests 20000] [--lanes 24] [--young 20000]

One gateway (services/gateway/node.py) in a process of its own with the collector as its deployment sets it; queue,
cache, journal and two simulated engines in this one, without Ray. Streams of every class, as in the soak. After each
twentieth of the requests the gateway's anonymous memory is read; the slope by least squares over the last two thirds
is printed per million requests, and what that is per hour at the soak's rate. At the end: how much of it a
collection gives back, and how much malloc does when asked (`malloc_trim`).

What the caches hold is left out (their bounds are theirs), as is the part of Ray.
"""

# pyright: reportPrivateUsage=false
# The mesh's own way to its parts, as its gateways have it.

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import multiprocessing
import os
import sys
import tempfile
import threading
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path

import uvloop

from services.config import GraphConfig
from services.experts.engine import ModelCard
from services.gateway.node import GatewayNode, Peers
from services.postprocess.policy import Policy
from tests.mesh.local_mesh import KEYS, local_mesh

from .samples import held, slope
from .streams import KINDS, Stream

TOKENS = 40
SOAK_RATE = 1.5
"""Requests per second of each of the soak's two gateways."""
LOOKS = 20
Endpoint = tuple[str, bytes]


class _Mallinfo(ctypes.Structure):
    """glibc's struct mallinfo2: bytes."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    ]  # fmt: skip


def _figures() -> dict[str, float]:
    libc = ctypes.CDLL("libc.so.6")
    libc.mallinfo2.restype = _Mallinfo
    info = libc.mallinfo2()
    return {
        "used_mb": info.uordblks / 2**20, "free_mb": info.fordblks / 2**20, "mapped_mb": info.hblkhd / 2**20,
        "objects": len(gc.get_objects()), "young": gc.get_count()[0], "blocks": sys.getallocatedblocks(),
    }  # fmt: skip


def _answer(pipe: Connection) -> None:
    """What this process is asked: figures, a collection, malloc's trim. Runs in a thread."""
    while True:
        match pipe.recv():
            case "look":
                pipe.send(_figures())
            case "collect":
                pipe.send(gc.collect())
            case "types":
                gc.collect()
                pipe.send(
                    Counter(f"{type(one).__module__}.{type(one).__qualname__}" for one in gc.get_objects())
                )
            case "trim":
                pipe.send(ctypes.CDLL("libc.so.6").malloc_trim(0))
            case _:
                os._exit(0)


def gateway_process(
    pipe: Connection, config: GraphConfig, ends: dict[str, Endpoint], card: ModelCard, young: int
) -> None:
    """A gateway as its deployment runs it: a uvloop in a thread."""

    async def policy(known: str, wait_s: float) -> Policy | None:
        await asyncio.sleep(wait_s)
        return None

    async def find(name: str) -> Endpoint:
        return ends[name]

    async def the_card() -> ModelCard:
        return card

    loop = uvloop.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    peers = Peers(
        lambda: find("queue"), lambda: find("cache"), the_card, policy, journal=lambda: find("journal")
    )
    node = GatewayNode(config, peers)
    asyncio.run_coroutine_threadsafe(node.start(), loop).result()
    gc.collect()
    gc.freeze()
    gc.set_threshold(young, 20, 20)
    pipe.send(node.http_port)
    _answer(pipe)


async def crowd(port: int, first: int, count: int, lanes: int) -> list[str]:
    """So many requests; returns what went wrong."""
    numbers, wrong = iter(range(first, first + count)), list[str]()

    async def lane() -> None:
        for number in numbers:
            stream = Stream(KINDS[number % len(KINDS)], number, TOKENS)
            keyed, asked_often = number % 8 == 0, number % 9 == 0
            if asked_often:
                stream = Stream("plain", number % 20, TOKENS, salt="faq")
            if number % 7 == 0:  # leaves in the middle
                leaving = asyncio.create_task(stream.run(port, KEYS["acme"]))
                await asyncio.sleep(0.03)
                leaving.cancel()
                await asyncio.wait((leaving,))
                continue
            headers = (
                "" if asked_often else "cache-control: no-store\r\n"
            )  # what the caches hold is bounded by them
            await stream.run(port, KEYS["acme"], resumable=keyed and stream.kind == "plain", headers=headers)
            if stream.error:
                wrong.append(stream.error)

    await asyncio.gather(*(lane() for _ in range(lanes)))
    return wrong


async def measure(told: argparse.Namespace, folder: Path) -> int:
    """Print the figures; returns how many answers were wrong."""
    experts = {"sim_step_s": 0.001, "max_num_seqs": 256}
    async with local_mesh(
        folder, engines=2, gateways=0, experts=experts, journal={"keep_s": 5.0}, within_s=3600.0
    ) as mesh:
        ends = {
            "queue": await mesh._queue(),
            "cache": await mesh._cache(),
            "journal": await mesh._find_journal(),
        }
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        child = context.Process(
            target=gateway_process,
            args=(theirs, mesh.config, ends, await mesh._card(), told.young),
            daemon=True,
        )
        child.start()
        assert child.pid is not None
        port = await asyncio.to_thread(ours.recv)
        await asyncio.sleep(1.0)

        async def ask(what: str) -> dict[str, float]:
            ours.send(what)
            return await asyncio.to_thread(ours.recv)

        def memory_mb() -> float:
            now = held(child.pid or 0, 0.0)
            return now.memory_mb if now is not None else float("nan")

        points: list[tuple[float, float]] = []
        wrong: list[str] = []
        share = told.requests // LOOKS
        for part in range(LOOKS):
            wrong += await crowd(port, part * share, share, told.lanes)
            seen = await ask("look")
            points.append(((part + 1) * share, memory_mb()))
            words = ", ".join(f"{name} {value:.2f}" for name, value in seen.items())
            print(f"{points[-1][0]} requests: {points[-1][1]:.2f} MB; {words}", flush=True)
        rise, error = slope(points[LOOKS // 3 :])
        print(
            f"young {told.young}: {rise * 1e6:.0f} ± {error * 1e6:.0f} MB per million requests, "
            f"{rise * SOAK_RATE * 3600:.2f} ± {error * SOAK_RATE * 3600:.2f} MB/h at {SOAK_RATE} requests/s; "
            f"wrong {len(wrong)} {wrong[:2]}"
        )
        before = memory_mb()
        await ask("collect")
        collected = memory_mb()
        await ask("trim")
        print(
            f"at the end {before:.2f} MB, after a collection {collected:.2f}, trimmed {memory_mb():.2f}",
            flush=True,
        )
        ours.send("end")
        child.join(5)
        return len(wrong)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        "memory", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--lanes", type=int, default=24)
    parser.add_argument("--young", type=int, default=20_000)
    told = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        return 1 if asyncio.run(measure(told, Path(folder))) else 0
