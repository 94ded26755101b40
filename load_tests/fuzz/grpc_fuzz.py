"""Odd calls against a gRPC port: an answer or a refusal by name, never INTERNAL or UNKNOWN, never silence.

python -m load_tests.fuzz.grpc_fuzz ADDRESS KEY --calls 10000 --seed 1
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from random import Random

import grpc

from load_tests.fuzz.grpc_messages import STREAMS, OddCall, odd_call

SERVICE = "/expertmesh.v1.Inference/"
TOGETHER = 32
HANG_S = 2.0
NEVER = frozenset(("INTERNAL", "UNKNOWN", "DATA_LOSS", "UNAVAILABLE", "silence"))


@dataclass
class Findings:
    """What came back, and the calls that should not have ended so."""

    codes: Counter[str] = field(default_factory=Counter[str])
    slowest_s: float = 0.0
    wrong: list[str] = field(default_factory=list[str])


async def fuzz(address: str, key: str, *, calls: int, seed: int, hang_s: float = HANG_S) -> Findings:
    """`calls` calls, `TOGETHER` at a time, on one connection. One that takes longer than `hang_s` is a finding."""
    found, random, left = Findings(), Random(seed), calls

    async def lane(channel: grpc.aio.Channel) -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await one(channel, odd_call(random), key, found, hang_s)

    async with grpc.aio.insecure_channel(address) as channel:
        await asyncio.gather(*(lane(channel) for _ in range(TOGETHER)))
    return found


async def one(channel: grpc.aio.Channel, odd: OddCall, key: str, found: Findings, hang_s: float) -> None:
    """Make the call and note how it ended."""
    began_s = time.monotonic()
    metadata = (("x-api-key", key), *odd.metadata)
    try:
        if odd.method in STREAMS:
            async for _ in channel.unary_stream(SERVICE + odd.method)(
                odd.data, metadata=metadata, timeout=20
            ):
                pass
        else:
            await channel.unary_unary(SERVICE + odd.method)(odd.data, metadata=metadata, timeout=20)
        code = "OK"
    except grpc.aio.AioRpcError as error:
        code = error.code().name
        ours = any(name == "grpc-status-details-bin" for name, _ in error.trailing_metadata() or ())
        if not ours:
            code = "silence" if code == "DEADLINE_EXCEEDED" else code
    took_s = time.monotonic() - began_s
    found.codes[f"{odd.method} {code}"] += 1
    found.slowest_s = max(found.slowest_s, took_s)
    if code in NEVER or took_s > hang_s:
        found.wrong.append(f"{code} after {took_s:.2f} s: {odd.method} {odd.data.hex()} {odd.metadata}")


def main() -> int:
    """Prints one JSON object; exit code 1 when a call ended as none may."""
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("key")
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    found = asyncio.run(fuzz(args.address, args.key, calls=args.calls, seed=args.seed))
    print(
        json.dumps(
            {
                "calls": sum(found.codes.values()),
                "slowest_s": round(found.slowest_s, 3),
                "codes": dict(sorted(found.codes.items())),
                "wrong": found.wrong[:20],
            },
            indent=1,
        )
    )
    return 1 if found.wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
