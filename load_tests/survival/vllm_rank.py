"""`python -m load_tests.survival.vllm_rank COMMISSION QUEUE KEY`: one rank in a process of its own, without Ray, that
tells the queue at QUEUE (host:port, KEY in hex) of itself. Prints its EngineInfo as one JSON line once a token was
generated; ends, as Serve's replica does, when its engine is gone, and with its standard input.
"""

from __future__ import annotations

import asyncio
import os
import sys

import msgspec

from services.experts import commission


async def serve(wish: commission.Commission, queue: tuple[str, bytes]) -> None:
    """Until standard input ends."""

    async def find() -> tuple[str, bytes]:
        return queue

    rank = commission.rank(wish, find, lambda why: os._exit(1))
    info = await rank.start()
    print(msgspec.json.encode(info).decode(), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await rank.stop()


if __name__ == "__main__":
    asked, address, key = sys.argv[1:]
    wanted = msgspec.json.decode(asked, type=commission.Commission)
    asyncio.run(serve(wanted, (address, bytes.fromhex(key))))
