"""Five thousand clients that leave at random points: how soon is the slot free, is anything left, is the bill right?

    python -m load_tests.bench.bench_disconnects --clients 5000

Points: before the request is whole, before the first token, after any number of tokens. Ways: reset, close, or
"done sending" (the client then reads on until the gateway hangs up, so that what was delivered can be counted to the
token). Times are of CLOCK_MONOTONIC, in both processes: from the client's system call to the engine's freed slot.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import uvloop

from .bench_hostile import quantile
from .mesh_processes import KEY, Rig, start
from .processes import Group

TOKEN = b'"text":"'
TOKENS = 50


class Leaver:
    """One client."""

    def __init__(self, seed: random.Random, number: int) -> None:
        self.request_id = f"leaver-{number}"
        self.way = seed.choice(("reset", "close", "done sending"))
        self.after_tokens = seed.choice((-2, -1, -1, *range(12), *range(12, TOKENS, 4)))
        self.pause_s = seed.random() * 0.02
        self.left_s = 0.0
        self.delivered = 0
        self.whole = False

    async def go(self, port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        body = json.dumps(
            {
                "model": "sim", "prompt": self.request_id, "max_tokens": TOKENS, "stream": True, "temperature": 1.0,
                "ignore_eos": True,
            }
        ).encode()  # fmt: skip
        head = (
            f"POST /v1/completions HTTP/1.1\r\nhost: b\r\nauthorization: Bearer {KEY}\r\n"
            f"x-request-id: {self.request_id}\r\ncontent-length: {len(body)}\r\n\r\n"
        ).encode()
        writer.write(head + body if self.after_tokens > -2 else head + body[:20])
        await writer.drain()
        tail = b""
        while self.after_tokens >= 0 and self.delivered < self.after_tokens and not self.whole:
            tail = self._take(tail, await reader.read(65_536))
        await asyncio.sleep(self.pause_s)
        self._leave(writer)
        if self.way == "done sending":
            with suppress(ConnectionError):
                while data := await reader.read(65_536):
                    tail = self._take(tail, data)
        writer.close()

    def _take(self, tail: bytes, data: bytes) -> bytes:
        """Count the events that begin in this data; a mark may be cut in two."""
        seen = tail + data
        self.delivered += seen.count(TOKEN)
        self.whole = self.whole or not data or b"[DONE]" in seen
        cut = seen.rfind(TOKEN)
        return seen[max(cut + len(TOKEN) if cut >= 0 else 0, len(seen) - len(TOKEN) + 1) :]

    def _leave(self, writer: asyncio.StreamWriter) -> None:
        self.left_s = time.monotonic()
        if self.way == "done sending":
            writer.write_eof()
        elif self.way == "close":
            writer.close()
        else:
            writer.transport.abort()


async def leave_all(port: int, clients: int, together: int, seed: int) -> list[Leaver]:
    """All of them, `together` at a time."""
    numbers, made = iter(range(clients)), list[Leaver]()
    chance = random.Random(seed)

    async def lane() -> None:
        for number in numbers:
            leaver = Leaver(chance, number)
            made.append(leaver)
            await leaver.go(port)

    await asyncio.gather(*(lane() for _ in range(together)))
    await asyncio.sleep(2.0)  # what is not free by now is an orphan
    return made


def findings(leavers: list[Leaver], slots: dict[str, Any], bills: dict[str, int]) -> dict[str, Any]:
    """What the goals ask for."""
    taken, freed = slots["taken"], slots["freed"]
    left = [(x, freed[x.request_id] - x.left_s) for x in leavers if x.request_id in freed]
    late = [late_s for _, late_s in left if late_s > 0]
    after_reset = [late_s for x, late_s in left if late_s > 0 and x.way == "reset"]
    counted = [x for x in leavers if x.way == "done sending" and x.request_id in bills]
    unequal = {
        x.request_id: (x.delivered, bills[x.request_id])
        for x in counted
        if x.delivered != bills[x.request_id]
    }
    seen = [
        bills[x.request_id] - x.delivered
        for x in leavers
        if x.way != "done sending" and x.request_id in bills
    ]
    return {
        "clients": len(leavers),
        "ways": Counter(x.way for x in leavers),
        "took a slot": len(taken),
        "left while generating": len(late),
        "slot free after, ms: p50, p99, max": [
            round(v, 2) for v in (quantile(late, 0.5), quantile(late, 0.99), max(late) * 1e3)
        ],
        "reset alone, ms: p99": round(quantile(after_reset, 0.99), 2),
        "slots never freed": len(set(taken) - set(freed)),
        "still running": slots["running"],
        "counted to the token": len(counted),
        "billed otherwise than delivered": len(unequal),
        "unequal": dict(list(unequal.items())[:5]),
        "billed beyond what the others had read: median, max": [sorted(seen)[len(seen) // 2], max(seen)],
        "billed below what was read": sum(1 for more in seen if more < 0),
    }


def bills_of(log: Path) -> dict[str, int]:
    """Tokens by request, as the gateway counts them for the bill."""
    lines = map(json.loads, log.read_text().splitlines())
    return {line["request_id"]: line["completion_tokens"] for line in lines if "completion_tokens" in line}


def measured(rig: Rig, group: Group, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    leavers = uvloop.run(leave_all(rig.http_port, args.clients, args.together, args.seed))
    group.stop()
    return findings(
        leavers, json.loads((folder / "slots.json").read_text()), bills_of(folder / "requests.jsonl")
    )


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=5000)
    parser.add_argument("--together", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    group = Group()
    with tempfile.TemporaryDirectory(prefix="leave-") as name:
        folder = Path(name)
        try:
            rig = start(
                group, folder, folder / "log", experts={"sim_step_s": 0.02, "max_num_seqs": 256},
                request_log=str(folder / "requests.jsonl"),
            )  # fmt: skip
            found = measured(rig, group, folder, args)
        finally:
            group.stop()
    print(json.dumps(found, indent=1))
    wrong = (
        "slots never freed",
        "still running",
        "billed otherwise than delivered",
        "billed below what was read",
    )
    return 1 if any(found[name] for name in wrong) else 0


if __name__ == "__main__":
    sys.exit(main())
