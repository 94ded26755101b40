"""The engine asked directly: open-loop streams over one link to a rank. Prints JSON as client.py does."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time

import uvloop

from services.link.asyncio_link import Link, connect
from services.link.messages import AnyMessage, StreamFailed, Submit
from services.request import GenerateJob, SamplingParams, TokenFrame
from services.sim_tokenizer import encode


class Direct:
    """Counts frames per stream."""

    def __init__(self) -> None:
        self.scheduled_s: dict[int, float] = {}
        self.last_s: dict[int, float] = {}
        self.ttft_s: list[float] = []
        self.gaps_s: list[float] = []
        self.failed = 0

    def link_up(self, link: Link) -> None: ...
    def link_down(self, link: Link, why: str) -> None: ...

    def link_message(self, link: Link, message: AnyMessage) -> None:
        now_s = time.monotonic()
        if isinstance(message, StreamFailed):
            self.failed += 1
            self.scheduled_s.pop(message.stream_id, None)
        elif isinstance(message, TokenFrame):
            stream = message.stream_id
            if stream in self.last_s:
                self.gaps_s.append(now_s - self.last_s[stream])
            else:
                self.ttft_s.append(now_s - self.scheduled_s[stream])
            self.last_s[stream] = now_s
            if message.finish is not None:
                del self.scheduled_s[stream]


async def main(args: argparse.Namespace) -> None:
    direct, rng = Direct(), random.Random(args.seed)
    link = await connect(args.address, bytes.fromhex(args.key), direct, "direct")
    due_s = time.monotonic()
    until_s, number = due_s + args.seconds, 0
    while due_s < until_s:
        due_s += rng.expovariate(args.rate)
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        number += 1
        prompt = encode(f"{args.seed}-{number} ".ljust(args.prompt_bytes, "x"))
        direct.scheduled_s[number] = due_s
        link.send(Submit(number, 0, GenerateJob(f"d{number}", prompt, SamplingParams(args.tokens))))
    while direct.scheduled_s:
        await asyncio.sleep(0.01)
    print(json.dumps({"ttft_s": direct.ttft_s, "gaps_s": direct.gaps_s, "failed": direct.failed}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--rate", type=float, default=100.0)
    parser.add_argument("--tokens", type=int, default=50)
    parser.add_argument("--prompt-bytes", type=int, default=1024)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=1)
    uvloop.run(main(parser.parse_args()))
