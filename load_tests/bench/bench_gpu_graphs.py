"""What CUDA graphs for steps that read prompts are worth on a GPU, and what they cost at the start.

    python -m load_tests.bench.bench_gpu_graphs --model FOLDER [--arms own-64,ours-64,own-256,ours-256]

One engine an arm, in a process of its own: `own` captures what vLLM would choose for so many streams, `ours` what
services/experts/graph_sizes.py says. Each is asked, in this order: three prompts at once, twice (is anything compiled
under a client's eyes?); prompts one by one; and as many streams as it takes, for ten seconds. Weights are random.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from services.config import ExpertsConfig
from services.experts.engine import Engine, StreamError
from services.experts.factory import make_engine
from services.experts.graph_sizes import graph_sizes
from services.request import GenerateJob, SamplingParams, TokenFrame, pack_ids

from .bench_gpu_mesh import gpu_memory

PROMPT, OUTPUTS, FULL_S = 512, (32, 257), 10.0


def own_sizes(streams: int) -> tuple[int, ...]:
    """vLLM's choice (VllmConfig._set_cudagraph_sizes, 0.26): by eights up to 256, by sixteens to twice the streams."""
    longest = min(2 * streams, 512)
    return (1, 2, 4, *range(8, min(longest + 1, 256), 8), *range(256, longest + 1, 16))


class Client:
    """Asks an engine in this process."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.rng = engine, random.Random(1)
        self._last = 0
        self.tokens = 0

    async def ask(self, prompt: int, output: int, until: Callable[[], bool] = lambda: False) -> float:
        """Seconds to the first token; returns when the answer is whole or `until` says that it is enough."""
        began_s, first_s = time.monotonic(), 0.0
        done = asyncio.Event()

        def sink(item: TokenFrame | StreamError) -> None:
            nonlocal first_s
            assert not isinstance(item, StreamError), item.message
            first_s = first_s or time.monotonic()
            self.tokens += len(item.token_ids)
            if item.finish is not None or until():
                done.set()

        self._last += 1
        ids = pack_ids(self.rng.randrange(100, 99_000) for _ in range(prompt))
        params = SamplingParams(max_tokens=output, temperature=0.0, ignore_eos=True)
        self.engine.submit(self._last, GenerateJob(f"ask-{self._last}", ids, params), sink)
        await done.wait()
        return first_s - began_s

    async def fill(self, streams: int) -> float:
        """Tokens per second with every slot taken."""
        began_s, before = time.monotonic(), self.tokens
        enough = lambda: time.monotonic() > began_s + FULL_S  # noqa: E731

        async def lane() -> None:
            while not enough():
                await self.ask(PROMPT, self.rng.randrange(*OUTPUTS), enough)

        await asyncio.gather(*(lane() for _ in range(streams)))
        return (self.tokens - before) / (time.monotonic() - began_s)


async def measure(model: str, arm: str) -> None:
    kind, _, number = arm.partition("-")
    streams = int(number)
    config = ExpertsConfig(
        model_path=model, model_name="bench", device="cuda", load_format="dummy", enforce_eager=False,
        gpu_kv_cache_bytes=int(8e9), gpu_memory_utilization=0.8, max_num_seqs=streams, max_model_len=2048,
        max_num_batched_tokens=2048, pin_cores=False,
        cuda_graph_sizes=own_sizes(streams) if kind == "own" else graph_sizes(),
    )  # fmt: skip
    engine = make_engine(config)
    began_s = time.monotonic()
    await engine.start()
    found: dict[str, object] = {
        "arm": arm, "graphs": len(config.cuda_graph_sizes), "longest": config.cuda_graph_sizes[-1],
        "ready_after_s": round(time.monotonic() - began_s, 1), "gpu_mib": gpu_memory(),
    }  # fmt: skip
    client = Client(engine)
    for turn in ("first", "second"):
        bursts = await asyncio.gather(*(client.ask(PROMPT - 1, 2) for _ in range(3)))
        found[f"three_at_once_{turn}_ms"] = round(1e3 * max(bursts))
    alone = sorted([await client.ask(PROMPT, 2) for _ in range(30)])
    found["alone_ms"] = {
        "p50": round(1e3 * statistics.median(alone), 1),
        "longest": round(1e3 * alone[-1], 1),
    }
    found["tokens_per_s"] = round(await client.fill(streams))
    print("RESULT " + json.dumps(found), flush=True)
    await engine.stop()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--arms", default="own-64,ours-64,own-256,ours-256")
    parser.add_argument("--arm")
    args = parser.parse_args()
    if args.arm:
        asyncio.run(measure(args.model, args.arm))
        return
    for arm in args.arms.split(","):
        subprocess.run(
            [sys.executable, "-m", __spec__.name, "--model", args.model, "--arm", arm], check=False
        )


if __name__ == "__main__":
    main()
