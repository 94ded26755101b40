"""One rank of a group under a closed loop, engine asked in its own process: what is left without any mesh or server.

Started by bench_gpu_layouts.py, one process a rank. Reads tasks as JSON lines, answers each with one JSON line; ends
with its standard input. Times are seconds of CLOCK_MONOTONIC, which all processes of a host share.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from array import array
from pathlib import Path

import msgspec

from services.config import ExpertsConfig
from services.experts.engine import Engine, StreamError
from services.experts.factory import make_engine
from services.experts.groups import RankPlace
from services.request import GenerateJob, SamplingParams, TokenFrame

from .processes import tree

FIRST_ID, LAST_ID = 100, 99_000
MAX_GAPS = 20_000
NO_MARLIN = "no marlin"
"""Among what is forced: experts in 4 bits by Triton, where the host has no Marlin kernels for its GPU."""
SKEW, LOADS = "skew", "loads"
"""Among what is forced: routers that prefer some experts (vllm_skew.py), and the file for the ranks' loads."""


class Task(msgspec.Struct, frozen=True):
    """`ids` > 0: prompts are made of so many different tokens only, so that some experts get most of the work."""

    lanes: int
    requests: int
    prompt_tokens: int = 512
    answer_tokens: int = 128
    seed: int = 1
    ids: int = 0


class Loop:
    """`lanes` streams at a time until `requests` have ended."""

    def __init__(self, engine: Engine, task: Task) -> None:
        self._engine, self._task = engine, task
        self._rng = random.Random(task.seed)
        self._sent = 0
        self.ended = 0
        self.failures: dict[str, int] = {}
        self.ttft_s: list[float] = []
        self.tpot_s: list[float] = []
        self.gaps_s: list[float] = []
        self.tokens = 0
        self.began_s = self.last_s = 0.0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._jobs = [self._job(number) for number in range(task.requests)]

    def _job(self, number: int) -> GenerateJob:
        task, rng = self._task, self._rng
        if task.ids:
            ids = array("I", (FIRST_ID + 97 * rng.randrange(task.ids) for _ in range(task.prompt_tokens)))
        else:
            ids = array("I", (rng.randrange(FIRST_ID, LAST_ID) for _ in range(task.prompt_tokens)))
        params = SamplingParams(max_tokens=task.answer_tokens, temperature=0.0, ignore_eos=True)
        return GenerateJob(
            f"b{task.seed}-{number}", ids.tobytes(), params, cache_salt=f"{task.seed}-{number}"
        )

    async def run(self) -> None:
        self.began_s = time.monotonic()
        for _ in range(min(self._task.lanes, self._task.requests)):
            self._next()
        if self._task.requests:
            await self.done

    def _next(self) -> None:
        job = self._jobs[self._sent]
        self._sent += 1
        stream = _Stream(self)
        self._engine.submit(self._sent, job, stream.take)

    def end(self, failed: str = "") -> None:
        self.ended += 1
        if failed:
            self.failures[failed] = self.failures.get(failed, 0) + 1
        if self._sent < len(self._jobs):
            self._next()
        elif self.ended == len(self._jobs):
            self.done.set_result(None)


class _Stream:
    __slots__ = ("first_s", "last_s", "loop", "num_tokens", "sent_s")

    def __init__(self, loop: Loop) -> None:
        self.loop, self.sent_s = loop, time.monotonic()
        self.first_s = self.last_s = 0.0
        self.num_tokens = 0

    def take(self, item: TokenFrame | StreamError) -> None:
        loop = self.loop
        if isinstance(item, StreamError):
            loop.end(item.message[:200])
            return
        now_s = time.monotonic()
        if item.token_ids:
            if not self.num_tokens:
                self.first_s = now_s
            elif len(loop.gaps_s) < MAX_GAPS:
                loop.gaps_s.append(now_s - self.last_s)
            self.num_tokens += len(item.token_ids)
            self.last_s = loop.last_s = now_s
        if item.finish is not None:
            loop.tokens += self.num_tokens
            loop.ttft_s.append(self.first_s - self.sent_s)
            loop.tpot_s.append((self.last_s - self.first_s) / max(1, self.num_tokens - 1))
            loop.end()


def gpu_mib(pid: int) -> int:
    """Memory that this process and its children hold on GPUs; 0 where the driver does not say."""
    command = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
    try:
        text = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return 0
    own = set(tree(pid))
    rows = [line.split(",") for line in text.splitlines() if line.count(",") == 1]
    return sum(
        int(used)
        for found, used in rows
        if found.strip().isdigit() and int(found) in own and used.strip().isdigit()
    )


def force(values: dict[str, object]) -> None:
    """Engine arguments that the product does not set, for this process."""
    from services.experts import vllm_engine

    if values.pop(NO_MARLIN, False):
        from vllm.model_executor.layers.quantization.compressed_tensors.compressed_tensors_moe import (
            compressed_tensors_moe as experts,
        )

        experts.check_moe_marlin_supports_layer = lambda *_, **__: False  # type: ignore[assignment]
    if skewed := values.pop(SKEW, None):
        from .vllm_skew import install

        install(loads=Path(str(values.pop(LOADS))), **skewed)  # type: ignore[arg-type]
    ours = vllm_engine.engine_args

    def forced(config: ExpertsConfig, place: RankPlace) -> object:
        args = ours(config, place)
        for name, value in values.items():
            setattr(args, name, value)
        return args

    vllm_engine.engine_args = forced  # type: ignore[assignment]


async def main(config: ExpertsConfig, place: RankPlace, forced: dict[str, object]) -> None:
    began_s = time.monotonic()
    engine = make_engine(config, place)
    if forced:
        force(forced)
    import_s = time.monotonic() - began_s
    if not await asyncio.to_thread(sys.stdin.readline):  # until then nothing of a GPU was touched
        return
    began_s = time.monotonic()
    info = await engine.start()
    ready = {
        "ready": True, "import_s": round(import_s, 1), "start_s": round(time.monotonic() - began_s, 1),
        "kv_tokens": info.kv_tokens, "gpu_mib": gpu_mib(os.getpid()),
    }  # fmt: skip
    print(json.dumps(ready), flush=True)
    try:
        while line := await asyncio.to_thread(sys.stdin.readline):
            loop = Loop(engine, msgspec.json.decode(line, type=Task))
            print(json.dumps({"prepared": True}), flush=True)
            await asyncio.to_thread(sys.stdin.readline)  # all ranks begin together
            await loop.run()
            found = {
                "began_s": loop.began_s, "last_s": loop.last_s, "tokens": loop.tokens, "failures": loop.failures,
                "ttft_s": loop.ttft_s, "tpot_s": loop.tpot_s, "gaps_s": loop.gaps_s[:2000],
            }  # fmt: skip
            print(json.dumps(found), flush=True)
    finally:
        await engine.stop()


if __name__ == "__main__":
    asyncio.run(
        main(
            ExpertsConfig.model_validate_json(sys.argv[1]),
            msgspec.json.decode(sys.argv[2], type=RankPlace),
            json.loads(sys.argv[3]) if len(sys.argv) > 3 else {},
        )
    )
