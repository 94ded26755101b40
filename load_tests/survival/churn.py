"""Workers die all the time: 20% of the engines are killed every minute, at random, under more load than they can take.

    python -m load_tests.survival churn [--engines 5] [--share 0.2] [--minutes 5] [--calm 30] [--seed 1]

`expertmesh run --graph sim`, few slots per engine and a quarter more lanes than slots, so that every slot is always
wanted; streams of every class. In each minute so many kills as the share says, at offsets and of victims that the seed
draws (a victim may be one that only just serves).

Live capacity is what the engines that the queue calls alive could make at most: at each moment their number, times
slots, times the tokens per second of a slot (one per `STEP_S`, without a pause for prefill or between two streams),
added up. As every slot is always wanted, the offered load never bounds it. It is not corrected for what an undisturbed
mesh leaves unused: the share of the calm seconds before the first kill is printed beside it, as a reference. Dead
engines count until the queue notices, new ones from when it may use them.

Goodput is the tokens of right answers that reached their clients while it was measured: each answer's tokens, as its
usage says them, spread evenly over its events (a unary answer's over the seconds that it took to make). Goals: nothing
fails, nothing is wrong, goodput at least 95% of live capacity.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.stack import Stack

from .attached import Attached
from .chaos import REPLICA, REVISION
from .streams import KINDS, Stream

SLOTS, STEP_S = 16, 0.02
TOKENS = 200
LOOK_EVERY_S = 0.25
SETTLE_S = 8.0
GOAL = 0.95


@dataclass(frozen=True)
class Window:
    """A span of the run, monotonic seconds, and the tokens that live engines could have made in it."""

    began_s: float
    ended_s: float
    capacity: float


def offsets(rng: random.Random, seconds: float, per_minute: float) -> list[float]:
    """When to kill, ascending: in each minute `per_minute` (what is over is carried on), anywhere in it."""
    found: list[float] = []
    minute, due = 0, 0.0
    while minute * 60.0 < seconds:
        length_s = min(60.0, seconds - minute * 60.0)
        due += per_minute * length_s / 60.0
        found += [minute * 60.0 + rng.uniform(0.0, length_s) for _ in range(int(due + 1e-9))]
        due -= int(due + 1e-9)
        minute += 1
    return sorted(found)


def delivered(streams: Iterable[Stream], began_s: float, ended_s: float) -> float:
    """Tokens of right answers that came within these moments."""
    return sum(_within(one, began_s, ended_s) for one in streams if not one.error and one.event_s)


def _within(stream: Stream, began_s: float, ended_s: float) -> float:
    tokens = stream.usage.get("completion_tokens", 0)
    if stream.kind == "unary":  # one event, at the end of all that it took
        end_s = stream.event_s[-1]
        took_s = tokens * STEP_S
        return (
            max(0.0, min(end_s, ended_s) - max(end_s - took_s, began_s)) / took_s * tokens if tokens else 0.0
        )
    inside = sum(began_s <= at_s < ended_s for at_s in stream.event_s)
    return tokens * inside / len(stream.event_s)


class Churn:
    """One run: a calm window, and one with kills."""

    def __init__(self, stack: Stack, engines: int, kills_s: Sequence[float], rng: random.Random) -> None:
        self.stack, self.engines, self.kills_s, self.rng = stack, engines, kills_s, rng
        self.mesh = Attached(stack)
        self.streams: list[Stream] = []
        self.kills = 0
        self.least = engines
        self._over = False

    async def run(self, calm_s: float, seconds: float) -> tuple[Window, Window]:
        lanes = [asyncio.create_task(self._lane(number)) for number in range(self.engines * SLOTS * 5 // 4)]
        await asyncio.sleep(SETTLE_S)  # every slot is taken
        calm = await self._watch(calm_s)
        killing = asyncio.create_task(self._kill())
        disturbed = await self._watch(seconds)
        self._over = True
        await killing
        await asyncio.gather(*lanes)
        return calm, disturbed

    async def _watch(self, seconds: float) -> Window:
        began_s = last_s = time.monotonic()
        capacity = 0.0
        while last_s < began_s + seconds:
            await asyncio.sleep(LOOK_EVERY_S)
            live = (await self.mesh.status())["revisions"].get(REVISION, {"engines": 0})["engines"]
            now_s = time.monotonic()
            capacity += live * SLOTS / STEP_S * (now_s - last_s)
            last_s, self.least = now_s, min(self.least, live)
        return Window(began_s, last_s, capacity)

    async def _kill(self) -> None:
        began_s = time.monotonic()
        for at_s in self.kills_s:
            await asyncio.sleep(max(0.0, began_s + at_s - time.monotonic()))
            pids = await asyncio.to_thread(self.stack.pids, REPLICA.format("ExpertShards"))
            os.kill(self.rng.choice(sorted(pids)), signal.SIGKILL)
            self.kills += 1

    async def _lane(self, number: int) -> None:
        await asyncio.sleep(number * SETTLE_S / 2 / (self.engines * SLOTS))
        while not self._over:
            count = len(self.streams)
            stream = Stream(KINDS[count % len(KINDS)], count, TOKENS, salt="churn ")
            self.streams.append(stream)
            await stream.run(self.stack.http_port, self.stack.key)


def verdict(churn: Churn, calm: Window, disturbed: Window) -> bool:
    """Print it; True when every goal is met."""
    calm_part, part = (
        delivered(churn.streams, one.began_s, one.ended_s) / one.capacity for one in (calm, disturbed)
    )
    seconds = disturbed.ended_s - disturbed.began_s
    whole = churn.engines * SLOTS / STEP_S * seconds
    bad = [one for one in churn.streams if one.error]
    gaps = [one.longest_gap_s for one in churn.streams]
    print(
        f"churn: {churn.kills} kills in {seconds / 60:.1f} min, {len(churn.streams)} streams, failed or wrong "
        f"{len(bad)}, goodput {part:.1%} of live capacity ({calm_part:.1%} in the calm before), which was "
        f"{disturbed.capacity / whole:.1%} of the whole (at least {churn.least} of {churn.engines} engines), "
        f"longest gap {max(gaps) * 1e3:.0f} ms",
        flush=True,
    )
    for one in bad[:5]:
        print(f"    {one.kind} {one.number}: {one.error}")
    return not bad and part >= GOAL


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        "churn", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engines", type=int, default=5)
    parser.add_argument("--share", type=float, default=0.2, help="of the engines, per minute")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--calm", type=float, default=30.0, help="seconds before the first kill")
    parser.add_argument("--seed", type=int, default=1)
    told = parser.parse_args(arguments)
    rng, seconds = random.Random(told.seed), told.minutes * 60
    kills_s = offsets(rng, seconds, told.engines * told.share)
    with tempfile.TemporaryDirectory() as folder:
        options = (f"engines={told.engines}", f"max_num_seqs={SLOTS}", f"step_s={STEP_S}")
        stack = Stack(Path(folder), "expertmesh", "run", "--graph", "sim", *options)
        try:
            stack.wait_ready()
            churn = Churn(stack, told.engines, kills_s, rng)
            good = verdict(churn, *asyncio.run(churn.run(told.calm, seconds)))
        finally:
            stack.stop()
    return 0 if good else 1
