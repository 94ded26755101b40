"""What the first prompts that do not fit into one step cost an engine that just started, on a GPU: with the warm-up as
it is, and without its round of them.

    python -m load_tests.bench.bench_gpu_first --model FOLDER

64 prompts of 1,500 tokens at once, twice: what a group gets when another is lost. Weights are random.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import subprocess
import sys
import time

from services.config import ExpertsConfig
from services.experts import warm_up
from services.experts.engine import StreamError
from services.experts.factory import make_engine
from services.request import GenerateJob, SamplingParams, TokenFrame, pack_ids

STREAMS, PROMPT = 64, 1500


async def measure(model: str, arm: str) -> None:
    config = ExpertsConfig(
        model_path=model, model_name="bench", device="cuda", load_format="dummy", enforce_eager=True,
        gpu_kv_cache_bytes=int(5.2e9), gpu_memory_utilization=0.3, max_num_seqs=512, max_model_len=4096,
        max_num_batched_tokens=8192, pin_cores=False,
    )  # fmt: skip
    engine = make_engine(config)
    if arm == "without":
        from services.experts import vllm_engine

        ours = warm_up.rounds
        vllm_engine.rounds = lambda size, length, *, split: ours(size, length, split=False)  # type: ignore[assignment]
    began_s = time.monotonic()
    await engine.start()
    found: dict[str, object] = {"arm": arm, "ready_after_s": round(time.monotonic() - began_s, 1)}
    rng = random.Random(1)
    for turn in ("first", "second"):
        firsts: list[float] = []
        done = asyncio.Event()

        def sink(
            item: TokenFrame | StreamError, firsts: list[float] = firsts, done: asyncio.Event = done
        ) -> None:
            assert not isinstance(item, StreamError), item.message
            firsts.append(time.monotonic())
            if len(firsts) == STREAMS:
                done.set()

        asked_s = time.monotonic()
        for number in range(STREAMS):
            ids = pack_ids(rng.randrange(100, 99_000) for _ in range(PROMPT))
            params = SamplingParams(max_tokens=1, temperature=0.0, ignore_eos=True)
            engine.submit(number, GenerateJob(f"{turn}{number}", ids, params), sink)
        await done.wait()
        after = sorted(1e3 * (at_s - asked_s) for at_s in firsts)
        gaps = [late - early for early, late in itertools.pairwise(after)]
        found[turn] = {
            "first_ms": round(after[0]), "median_ms": round(after[STREAMS // 2]), "last_ms": round(after[-1]),
            "longest_gap_ms": round(max(gaps)),
        }  # fmt: skip
    print(json.dumps(found), flush=True)
    await engine.stop()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--arm", choices=["with", "without"])
    args = parser.parse_args()
    if args.arm:
        asyncio.run(measure(args.model, args.arm))
        return
    for arm in ("without", "with"):
        subprocess.run([sys.executable, "-m", __spec__.name, "--model", args.model, "--arm", arm], check=True)


if __name__ == "__main__":
    main()
