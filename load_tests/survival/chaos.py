"""Kills on real processes while 200 streams of mixed classes are on the line: who notices?

    python -m load_tests.survival chaos [--victims engine,queue,…] [--streams 200] [--kills 20] [--seed 1]

`expertmesh run --graph sim` with three engines, two gateways and a Valkey of our own. Each victim in turn is killed
so often at random offsets, always once its last successor serves. Every token of every stream is compared; a stream
that is told an error, or is cut, or is wrong, has failed. Where gateways are killed all streams bring a key and
come back.

    engine         kill -9 of a replica of ExpertShards
    engine_term    SIGTERM to it: a single rank is asked to go
    engine_stop    SIGSTOP for three seconds
    queue          kill -9 of the queue's process and of Serve's replica that keeps it
    cache, postprocess, gateway    kill -9 of the replica
    gateway_term   SIGTERM to a gateway's replica
    store          kill -9 of the Valkey, which is back half a second later, empty
    controller     kill -9 of Serve's controller
    gcs            kill -9 of Ray's GCS, which keeps its state in a second Valkey and is back a second later; then an
                   engine is killed, whose successor needs it
    a+b+c          several at the same time, each so often
    a:5            five kills, whatever --kills says

After an engine's kill: the pause of a stream is its gap between two events that the kill lies in. One of three engines
held a third of the streams; the percentiles are those of the third with the longest pauses.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.cluster.stack import Stack

from ..bench.cache_rig import Valkey
from .attached import Attached
from .gcs import PROCESS, Gcs
from .streams import KINDS, RESUMABLE, Stream

ENGINES, GATEWAYS = 3, 2
REVISION = "sim-1"
REPLICA = "ServeReplica:default:{}"
STOPPED_S = 3.0
STORE_AWAY_S = 0.5
BACK_WITHIN_S = 90.0


class Rig:
    """One mesh and what can be killed in it. A killer returns the moment of the kill, and is followed by a wait until
    the victim serves again."""

    def __init__(self, stack: Stack, valkey: Valkey, rng: random.Random, gcs: Gcs | None = None) -> None:
        self.stack, self.valkey, self.rng, self.gcs = stack, valkey, rng, gcs
        self.mesh = Attached(stack)
        self.victims: dict[str, Callable[[], Awaitable[float]]] = {
            "engine": lambda: self._engine(signal.SIGKILL),
            "engine_term": lambda: self._engine(signal.SIGTERM),
            "engine_stop": self._engine_stop,
            "queue": self._queue,
            "cache": lambda: self._replica("Cache", 1),
            "postprocess": lambda: self._replica("Postprocess", 1),
            "gateway": lambda: self._gateway(signal.SIGKILL),
            "gateway_term": lambda: self._gateway(signal.SIGTERM),
            "store": self._store,
            "controller": self._controller,
            "gcs": self._gcs,
        }

    async def _pids(self, name: str) -> list[int]:
        return await asyncio.to_thread(self.stack.pids, name)

    async def _until_pids(self, name: str, number: int, without: set[int]) -> None:
        async with asyncio.timeout(BACK_WITHIN_S):
            while len(set(await self._pids(name)) - without) < number:
                await asyncio.sleep(0.1)

    async def _engine(self, how: signal.Signals) -> float:
        pid = self.rng.choice(await self._pids(REPLICA.format("ExpertShards")))
        os.kill(pid, how)
        at_s = time.monotonic()
        await self._until_pids(REPLICA.format("ExpertShards"), ENGINES, {pid})
        await self.mesh.until_engines(REVISION, ENGINES)
        return at_s

    async def _engine_stop(self) -> float:
        pid = self.rng.choice(await self._pids(REPLICA.format("ExpertShards")))
        os.kill(pid, signal.SIGSTOP)
        at_s = time.monotonic()
        await asyncio.sleep(STOPPED_S)
        os.kill(pid, signal.SIGCONT)
        await asyncio.sleep(1.0)
        await self.mesh.until_engines(REVISION, ENGINES)
        return at_s

    async def _queue(self) -> float:
        names = ("services.queue.uvloop_process", REPLICA.format("PriorityQueue"))
        pids = [pid for name in names for pid in await self._pids(name)]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        at_s = time.monotonic()
        for name in names:
            await self._until_pids(name, 1, set(pids))
        await self.mesh.until_engines(REVISION, ENGINES)
        return at_s

    async def _replica(self, name: str, number: int, how: signal.Signals = signal.SIGKILL) -> float:
        pid = self.rng.choice(await self._pids(REPLICA.format(name)))
        os.kill(pid, how)
        at_s = time.monotonic()
        await self._until_pids(REPLICA.format(name), number, {pid})
        return at_s

    async def _gateway(self, how: signal.Signals) -> float:
        at_s = await self._replica("Gateway", GATEWAYS, how)
        async with asyncio.timeout(BACK_WITHIN_S):  # a process alone is no gateway yet
            seen: set[str] = set()
            while len(seen) < GATEWAYS:
                seen.add(await asyncio.to_thread(self._who_is_ready))
                seen.discard("")
                await asyncio.sleep(0.05)
        return at_s

    def _who_is_ready(self) -> str:
        """The gateway that says that it is ready: of the same answer, another one may be the next to be asked."""
        try:
            with urllib.request.urlopen(f"{self.stack.base_url}/readyz", timeout=5) as answer:
                return answer.headers["x-request-id"].rpartition("-")[0]
        except (OSError, AttributeError):
            return ""

    async def _store(self) -> float:
        await asyncio.to_thread(self.valkey.signal, signal.SIGKILL)
        at_s = time.monotonic()
        await asyncio.sleep(STORE_AWAY_S)
        await asyncio.to_thread(self.valkey.again)
        return at_s

    async def _gcs(self) -> float:
        assert self.gcs is not None
        (pid,) = await self._pids(PROCESS)
        port = self.mesh.environment["RAY_ADDRESS"].rpartition(":")[2]
        at_s = await asyncio.to_thread(self.gcs.kill, pid, port)
        await self._engine(signal.SIGKILL)
        return at_s

    async def _controller(self) -> float:
        pids = await self._pids("ServeController")
        os.kill(pids[0], signal.SIGKILL)
        at_s = time.monotonic()
        await self._until_pids("ServeController", 1, set(pids))
        return at_s


async def offer(
    rig: Rig, victim: str, streams: int, kills: int, tokens: int
) -> tuple[list[Stream], list[float]]:
    """All streams, and the moments of the kills."""
    asked: list[Stream] = []
    kills_s: list[float] = []
    resumable = victim.startswith("gateway")
    kinds = RESUMABLE if resumable else KINDS
    port, key, salt = rig.stack.http_port, rig.stack.key, f"{victim} {time.monotonic_ns()} "

    async def kill(one: str) -> None:
        await asyncio.sleep(1.0)
        for _ in range(kills):
            await asyncio.sleep(rig.rng.uniform(0.2, 1.5))
            kills_s.append(await rig.victims[one]())

    async def kill_all() -> None:
        await asyncio.gather(*map(kill, victim.split("+")))

    async def lane(number: int) -> None:
        await asyncio.sleep(
            number * 2.0 / streams
        )  # not all at once: a stream's end should not be everybody's
        while not killing.done():
            stream = Stream(kinds[len(asked) % len(kinds)], len(asked), tokens, salt=salt)
            asked.append(stream)
            await stream.run(port, key, resumable=resumable)

    killing = asyncio.create_task(kill_all())
    await asyncio.gather(killing, *map(lane, range(streams)))
    return asked, kills_s


def pauses(streams: list[Stream], kills_s: list[float]) -> list[float]:
    """The longest third of the pauses around each kill, all kills together, sorted."""
    found: list[float] = []
    for kill_s in kills_s:
        here: list[float] = []
        for stream in streams:
            times = stream.event_s
            after = next((i for i, at_s in enumerate(times) if at_s > kill_s), 0)
            if after:
                # A frame that was on its way may come just after the kill: the gap behind it counts, too.
                here.append(
                    max(
                        b - a
                        for a, b in zip(times[after - 1 : after + 2], times[after : after + 3], strict=False)
                    )
                )
        here.sort()
        found += here[-(len(here) // ENGINES) :]
    return sorted(found)


def share(values: list[float], part: float) -> float:
    return values[min(len(values) - 1, int(len(values) * part))] if values else float("nan")


def verdict(victim: str, streams: list[Stream], kills_s: list[float]) -> int:
    """Print it; returns how many failed."""
    bad = [stream for stream in streams if stream.error]
    gaps = sorted(one.longest_gap_s for one in streams)
    line = f"{victim}: {len(kills_s)} kills, {len(streams)} streams, failed or wrong {len(bad)}"
    line += f", longest gap {gaps[-1] * 1e3:.0f} ms"
    if victim.startswith("engine") and "+" not in victim:
        seen = pauses(streams, kills_s)
        line += f", pauses p50 {share(seen, 0.5) * 1e3:.0f} p99 {share(seen, 0.99) * 1e3:.0f}"
        line += f" longest {seen[-1] * 1e3:.0f} ms"
    if resumed := sorted(gap for stream in streams for gap in stream.resumed_s):
        line += (
            f", {len(resumed)} resumed: p50 {statistics.median(resumed):.2f} s, longest {resumed[-1]:.2f} s"
        )
    if anew := sum(stream.begun_anew for stream in streams):
        line += f", {anew} begun anew (told that they are not kept)"
    print(line, flush=True)
    if resumed:
        took_s, way = max(stream.longest_way for stream in streams)
        print(f"    the longest way back, {took_s:.2f} s: {'; '.join(way[:12])}", flush=True)
    for stream in bad[:5]:
        print(f"    {stream.kind} {stream.number}: {stream.error}")
    return len(bad)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        "chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--victims",
        default="engine,engine_term,engine_stop,queue,cache,postprocess,gateway,gateway_term,store,controller",
    )
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    told = parser.parse_args(arguments)
    failed = 0
    valkey = Valkey()
    environment, gcs = {"EXPERTMESH_REDIS_URL": valkey.url}, None
    if "gcs" in told.victims:
        gcs = Gcs()
        environment |= gcs.environment
    with tempfile.TemporaryDirectory() as folder:
        more = (f"engines={ENGINES}", f"gateways={GATEWAYS}")
        command = ("expertmesh", "run", "--graph", "sim", *more)
        stack = Stack(Path(folder), *command, environment=environment)
        try:
            stack.wait_ready()
            rig = Rig(stack, valkey, random.Random(told.seed), gcs)
            for wish in told.victims.split(","):
                victim, _, kills = wish.partition(":")
                seen = asyncio.run(offer(rig, victim, told.streams, int(kills or told.kills), told.tokens))
                failed += verdict(victim, *seen)
                time.sleep(2)
        finally:
            stack.stop()
            valkey.server.stop()
            if gcs is not None:
                gcs.end()
    return 1 if failed else 0
