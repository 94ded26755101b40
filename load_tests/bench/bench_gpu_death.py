"""How soon a rank knows that its engine core was killed, on a GPU: by the kernel's word, and by vLLM's.

    python -m load_tests.bench.bench_gpu_death --model FOLDER

A process that holds a GPU takes its time to die. vLLM waits until it is gone; services/experts/vllm_engine.py asks the
kernel whether it is on its way out. Both are looked at every millisecond after the kill. Weights are random.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import time

from services.config import ExpertsConfig
from services.experts.engine import StreamError
from services.experts.factory import make_engine
from services.request import GenerateJob, SamplingParams, TokenFrame, pack_ids


async def main(args: argparse.Namespace) -> None:
    config = ExpertsConfig(
        model_path=args.model, model_name="bench", device="cuda", load_format="dummy", enforce_eager=True,
        gpu_kv_cache_bytes=int(args.kv_gb * 1e9), gpu_memory_utilization=0.3, max_num_seqs=64, max_model_len=4096,
        pin_cores=False,
    )  # fmt: skip
    engine = make_engine(config)
    began_s = time.monotonic()
    await engine.start()
    print(json.dumps({"ready_after_s": round(time.monotonic() - began_s, 1)}), flush=True)
    from services.experts.vllm_engine import VllmEngine

    assert isinstance(engine, VllmEngine)
    frames: list[TokenFrame | StreamError] = []
    params = SamplingParams(max_tokens=2000, temperature=0.0, ignore_eos=True)
    for number in range(32):
        engine.submit(
            number, GenerateJob(f"d{number}", pack_ids(range(100 + number, 612)), params), frames.append
        )
    while len(frames) < 32 * 20:  # frames have no event of their own
        await asyncio.sleep(0.01)
    core = engine.cores[0]
    killed_s = time.monotonic()
    os.kill(core.pid, signal.SIGKILL)
    ending_s = gone_s = told_s = 0.0
    while not (ending_s and gone_s and told_s) and time.monotonic() - killed_s < 20:
        now_s = time.monotonic() - killed_s
        ending_s = ending_s or (now_s if core.ending else 0.0)
        gone_s = gone_s or (now_s if not core.alive else 0.0)
        told_s = told_s or (now_s if any(isinstance(frame, StreamError) for frame in frames) else 0.0)
        await asyncio.sleep(0.001)
    found = {"kernel_ms": ending_s, "gone_ms": gone_s, "vllm_ms": told_s}
    print(json.dumps({name: round(1e3 * value, 1) for name, value in found.items()}), flush=True)
    await engine.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--kv-gb", type=float, default=12.0)
    asyncio.run(main(parser.parse_args()))
