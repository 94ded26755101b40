"""Half an hour of light load: does any process grow?

    python -m load_tests.survival soak [--minutes 30] [--warm-up-minutes 10] [--rate 3] [--warm-up-rate 20]

`expertmesh run --graph sim` as a user starts it, with two gateways. Streams of every class, answers out of the cache,
clients that leave in the middle, clients that come back with their key, refused requests, looks at the metrics. Every
ten seconds each process's anonymous memory, files, sockets and threads are read. The warm-up makes the same requests
more often: tables that are bounded fill by requests and not by minutes (some 1,500 per gateway). After it: the slope of
memory by least squares with its standard error, and how the counts differ between the first and the last fifth, in
medians.
Goals: less than 1 MB per hour; no growth of files, sockets, threads.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from tests.cluster.stack import Stack

from ..bench.processes import command_line
from .samples import Held, held, role, slope
from .streams import KINDS, Stream

EVERY_S = 10.0
TOKENS = 40
GOAL_MB_PER_H = 1.0


class Soak:
    """One run. `series`: what each process held, by pid."""

    def __init__(self, stack: Stack, rate: float, warm_up_rate: float) -> None:
        self.stack, self.rate, self.warm_up_rate = stack, rate, warm_up_rate
        self.series: dict[int, list[Held]] = {}
        self.roles: dict[int, str] = {}
        self.ended = 0
        self.failed: list[str] = []
        self._numbers = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, warm_up_s: float, seconds: float, out: Path | None) -> None:
        began_s = time.monotonic()
        until_s = began_s + warm_up_s + seconds
        loading = asyncio.create_task(self._load(began_s + warm_up_s, until_s))
        while time.monotonic() < until_s:
            await asyncio.sleep(EVERY_S)
            await asyncio.to_thread(self._look, time.monotonic() - began_s)
            if out is not None:  # so that a run that is cut off has something to show
                named = {f"{self.roles[pid]} {pid}": seen for pid, seen in self.series.items()}
                await asyncio.to_thread(out.write_bytes, msgspec.json.encode(named))
        await loading
        await asyncio.wait(self._tasks or {asyncio.create_task(asyncio.sleep(0))}, timeout=60)

    def _look(self, at_s: float) -> None:
        for pid in self.stack.pids():
            if pid not in self.roles:
                self.roles[pid] = role(command_line(pid))
            if (now := held(pid, at_s)) is not None:
                self.series.setdefault(pid, []).append(now)

    async def _load(self, warm_s: float, until_s: float) -> None:
        rng = random.Random(1)
        while (now_s := time.monotonic()) < until_s:
            await asyncio.sleep(rng.expovariate(self.rate if now_s >= warm_s else self.warm_up_rate))
            task = asyncio.create_task(self._one(rng.random(), self._numbers))
            self._numbers += 1
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _one(self, which: float, number: int) -> None:
        port, key = self.stack.http_port, self.stack.key
        stream = Stream(KINDS[number % len(KINDS)], number, TOKENS)
        if which < 0.15:  # a frequent question: out of the cache, or followed while it is made
            stream = Stream("plain", number % 20, TOKENS, salt="faq")
            await stream.run(port, key, headers="")
        elif which < 0.3:  # with a key; a third of them asks again later and gets the same
            stream = Stream("plain", number, TOKENS, salt="kept")
            await stream.run(port, key, resumable=True)
            if which < 0.2:
                again = Stream("plain", number, TOKENS, salt="kept")
                await again.run(port, key, resumable=True)
        elif which < 0.45:  # leaves in the middle
            leaving = asyncio.create_task(stream.run(port, key))
            await asyncio.sleep(0.3)
            leaving.cancel()
            await asyncio.wait((leaving,))
            return
        elif which < 0.5:
            await asyncio.to_thread(self.stack.call, "/v1/completions", {"model": "none", "prompt": "x"})
            await asyncio.to_thread(self.stack.call, "/metrics")
            return
        else:
            await stream.run(port, key)
        self.ended += 1
        if stream.error:
            self.failed.append(stream.error)

    def report(self, warm_up_s: float) -> dict[str, object]:
        """Figures per process, as plain data."""
        rows = []
        for pid, all_of_it in self.series.items():
            seen = [one for one in all_of_it if one.at_s >= warm_up_s]
            if len(seen) < 10:
                continue
            rise, error = slope([(one.at_s, one.memory_mb) for one in seen])
            fifth = max(1, len(seen) // 5)
            rows.append(
                {
                    "process": self.roles[pid], "pid": pid, "samples": len(seen),
                    "memory_mb": [round(seen[0].memory_mb, 2), round(seen[-1].memory_mb, 2)],
                    "mb_per_h": round(rise * 3600, 3), "error_mb_per_h": round(error * 3600, 3),
                    **{
                        name: [_median(seen[:fifth], name), _median(seen[-fifth:], name)]
                        for name in ("files", "sockets", "threads")
                    },
                }
            )  # fmt: skip
        return {"answers": self.ended, "failed": self.failed[:20], "processes": rows}


def _median(seen: Sequence[Held], name: str) -> float:
    return statistics.median(getattr(one, name) for one in seen)


def show(report: dict[str, object]) -> bool:
    """Print it; True when every goal is met."""
    good = not report["failed"]
    print(f"{report['answers']} answers, failed or wrong: {report['failed'] or 'none'}")
    print("| process | MB, first and last | MB/h ± standard error | files | sockets | threads | grew |")
    print("|---|---|---|---|---|---|---|")
    rows: list[dict[str, object]] = report["processes"]  # type: ignore[assignment]
    for row in sorted(rows, key=lambda row: -float(row["mb_per_h"])):  # type: ignore[arg-type]
        grew = [name for name in ("files", "sockets", "threads") if row[name][1] > row[name][0] + 1]  # type: ignore[index]
        missed = (["memory"] if float(row["mb_per_h"]) >= GOAL_MB_PER_H else []) + grew  # type: ignore[arg-type]
        good = good and not missed
        counts = " | ".join("{:g} → {:g}".format(*row[name]) for name in ("files", "sockets", "threads"))  # type: ignore[misc]
        first, last = row["memory_mb"]  # type: ignore[misc]
        rise = f"{row['mb_per_h']} ± {row['error_mb_per_h']}"
        print(f"| {row['process']} | {first} → {last} | {rise} | {counts} | {', '.join(missed)} |")
    return good


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        "soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30.0, help="after the warm-up")
    parser.add_argument("--warm-up-minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=3.0, help="requests per second")
    parser.add_argument("--warm-up-rate", type=float, default=20.0)
    parser.add_argument("--series", type=Path, help="a file for every sample")
    told = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        stack = Stack(Path(folder), "expertmesh", "run", "--graph", "sim", "gateways=2")
        try:
            stack.wait_ready()
            print("the mesh is up", file=sys.stderr, flush=True)
            soak = Soak(stack, told.rate, told.warm_up_rate)
            warm_up_s = told.warm_up_minutes * 60
            asyncio.run(soak.run(warm_up_s, told.minutes * 60, told.series))
        finally:
            stack.stop()
    return 0 if show(soak.report(warm_up_s)) else 1
