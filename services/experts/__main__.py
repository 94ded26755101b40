"""`python -m services.experts SETTINGS PLACE`: one rank in a process of its own, without Ray and without a queue.

For tests and benchmarks that ask an engine directly. SETTINGS is ExpertsConfig, PLACE is RankPlace, both JSON.
Prints one JSON line {"address", "key", "info"} when it can take streams, and ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys

import msgspec

from ..config import ExpertsConfig
from .factory import make_engine
from .groups import RankPlace
from .rank import Rank


async def serve(config: ExpertsConfig, place: RankPlace) -> None:
    """Run the rank until standard input ends."""
    engine = make_engine(config, place)
    rank = Rank(engine, engine_id=f"rank-{place.rank}", stuck_after_s=config.stuck_after_s)
    try:
        info = await rank.start()
        ready = {"address": rank.address, "key": rank.key.hex(), "info": msgspec.to_builtins(info)}
        print(json.dumps(ready), flush=True)
        await asyncio.to_thread(sys.stdin.read)
    finally:
        await rank.stop()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    asyncio.run(
        serve(
            ExpertsConfig.model_validate_json(sys.argv[1]), msgspec.json.decode(sys.argv[2], type=RankPlace)
        )
    )
