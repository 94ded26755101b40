"""Machines come and go all the time: 20% of the engines are killed every minute, under more load than they can take.

    python -m load_tests.survival churn [--engines 5] [--share 0.2] [--minutes 5]

`expertmesh run --graph sim`, few slots per engine and more lanes than slots, so that every slot is always wanted.
Capacity is what the engines that the queue calls alive could make (slots by tokens per second), added up over time;
goodput is the tokens that reached clients in right answers or are on their way to it. Goals: nothing fails, goodput
at least 95%.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import tempfile
import time
from pathlib import Path

from tests.cluster.stack import Stack

from .attached import Attached
from .chaos import REPLICA, REVISION
from .streams import Stream

SLOTS, STEP_S = 16, 0.02
TOKENS = 200
LOOK_EVERY_S = 0.25
GOAL = 0.95


class Churn:
    """One run. `capacity` and `got` are tokens."""

    def __init__(self, stack: Stack, engines: int, share: float) -> None:
        self.stack, self.engines, self.every_s = stack, engines, 60.0 / (engines * share)
        self.mesh = Attached(stack)
        self.streams: list[Stream] = []
        self.capacity, self.kills = 0.0, 0
        self.began_s = self.ended_s = 0.0

    async def run(self, seconds: float) -> None:
        lanes = [asyncio.create_task(self._lane()) for _ in range(self.engines * SLOTS * 5 // 4)]
        await asyncio.sleep(5.0)  # every slot is taken
        self.began_s = time.monotonic()
        self.ended_s = self.began_s + seconds
        killing = asyncio.create_task(self._kill())
        last_s = time.monotonic()
        while last_s < self.ended_s:
            await asyncio.sleep(LOOK_EVERY_S)
            live = (await self.mesh.status())["revisions"].get(REVISION, {"engines": 0})["engines"]
            now_s = min(time.monotonic(), self.ended_s)
            self.capacity += live * SLOTS / STEP_S * (now_s - last_s)
            last_s = time.monotonic()
        killing.cancel()
        await asyncio.gather(*lanes)

    async def _kill(self) -> None:
        rng = random.Random(1)
        while True:
            pids = await asyncio.to_thread(self.stack.pids, REPLICA.format("ExpertShards"))
            os.kill(rng.choice(pids), signal.SIGKILL)
            self.kills += 1
            await asyncio.sleep(self.every_s)

    async def _lane(self) -> None:
        while not self.ended_s or time.monotonic() < self.ended_s:
            stream = Stream("plain", len(self.streams), TOKENS, salt="churn ")
            self.streams.append(stream)
            await stream.run(self.stack.http_port, self.stack.key)

    def goodput(self) -> float:
        """Tokens that came while it was measured; an event may have several."""
        got = 0.0
        for one in self.streams:
            if not one.error and one.event_s:
                inside = sum(self.began_s <= at_s < self.ended_s for at_s in one.event_s)
                got += TOKENS * inside / len(one.event_s)
        return got


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        "churn", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engines", type=int, default=5)
    parser.add_argument("--share", type=float, default=0.2, help="of the engines, per minute")
    parser.add_argument("--minutes", type=float, default=5.0)
    told = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        options = (f"engines={told.engines}", f"max_num_seqs={SLOTS}", f"step_s={STEP_S}")
        stack = Stack(Path(folder), "expertmesh", "run", "--graph", "sim", *options)
        try:
            stack.wait_ready()
            churn = Churn(stack, told.engines, told.share)
            asyncio.run(churn.run(told.minutes * 60))
        finally:
            stack.stop()
    bad = [one for one in churn.streams if one.error]
    part = churn.goodput() / churn.capacity
    whole = told.engines * SLOTS / STEP_S * told.minutes * 60
    print(
        f"{churn.kills} kills in {told.minutes:g} min, {len(churn.streams)} streams, failed or wrong {len(bad)}, "
        f"goodput {part:.1%} of live capacity (which was {churn.capacity / whole:.1%} of the whole)"
    )
    for one in bad[:5]:
        print(f"    {one.number}: {one.error}")
    return 0 if not bad and part >= GOAL else 1
