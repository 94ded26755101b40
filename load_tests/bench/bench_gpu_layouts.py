"""Layouts of one model beside one another, engines asked in their own processes. For a host with four GPUs:

    python -m load_tests.bench.bench_gpu_layouts --waves small,pairs,large --out results.jsonl

A *wave* is a set of groups that are up together: a start takes a minute, so as many groups as the GPUs' memory holds
are started at once. They are then measured in turns; those whose GPUs do not overlap share a turn. Weights are random.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from services.config import ExpertsConfig
from services.experts.groups import RankPlace
from services.ports import free_port

from . import gpu_models
from .bench_gpu_load import quantile
from .bench_gpu_mesh import GRAPH_SIZES, gpu_memory, write
from .bench_gpu_rank import LOADS, SKEW, Task
from .gpu_waves import TURNS, WAVES, Layout, Turn
from .processes import tree
from .vllm_skew import imbalance

LOG_LINES = {
    "weights_gib": r"Model loading took ([\d.]+) GiB",
    "compile_s": r"torch\.compile (?:took|and initial profiling/warmup run together took|takes) ([\d.]+) s",
    "graphs_s": r"Graph capturing finished in ([\d.]+) sec",
    "init_engine_s": r"init engine .* took ([\d.]+) s",
    "kv_tokens": r"GPU KV cache size: ([\d,]+) tokens",
    "experts_by": r"Using (\S+) \S+ MoE backend|Using (CompressedTensors\w+)",
}


class Group:
    """One layout's processes. Their logs are files; what they say on standard output are answers. They import vLLM at
    once, and start their engines when told (`heard`)."""

    def __init__(self, layout: Layout, folder: Path) -> None:
        self.layout = layout
        self.logs = [
            folder / f"{re.sub('[^A-Za-z0-9]+', '-', layout.name)}-{r}.log" for r in range(len(layout.gpus))
        ]
        tensor = len(layout.gpus[0])
        see = [",".join(map(str, gpus)) for gpus in layout.gpus]
        values: dict[str, Any] = {
            "engine": "vllm", "model_path": f"/tmp/models/{layout.model}", "model_name": "bench", "device": "cuda",
            "shards": len(layout.gpus), "tensor_parallel": tensor, "max_num_seqs": 512, "max_model_len": 2048,
            "max_num_batched_tokens": 8192, "cuda_graph_sizes": [int(size) for size in GRAPH_SIZES.split(",")],
            "gpu_kv_cache_bytes": int(layout.kv_gb * 1e9), "gpu_memory_utilization": 0.05, "load_format": "dummy",
            "enforce_eager": False, "pin_cores": False, "stuck_after_s": 60.0, **layout.settings,
        }  # fmt: skip
        config = ExpertsConfig.model_validate(values).model_dump_json()
        port = free_port()
        self.processes: list[subprocess.Popen[str]] = []
        program = [sys.executable, "-m", "load_tests.bench.bench_gpu_rank", config]
        self.loads = [log.with_suffix(".loads") for log in self.logs] if SKEW in layout.force else []
        for rank in range(len(layout.gpus)):
            force = layout.force | ({LOADS: str(self.loads[rank])} if self.loads else {})
            place = msgspec.json.encode(RankPlace(rank, len(layout.gpus), "127.0.0.1", port)).decode()
            with self.logs[rank].open("w") as log:
                self.processes.append(
                    subprocess.Popen(
                        [*program, place, json.dumps(force)],
                        env={**os.environ, "CUDA_VISIBLE_DEVICES": see[rank], "VLLM_LOGGING_LEVEL": "INFO"},
                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
                    )
                )  # fmt: skip
        self.ready: list[dict[str, Any]] = []

    def hear(self, rank: int) -> dict[str, Any]:
        """The rank's next answer. Raises RuntimeError when it ended instead."""
        pipe = self.processes[rank].stdout
        assert pipe is not None
        for line in pipe:
            if line.startswith("{"):
                return json.loads(line)
        raise RuntimeError(f"{self.layout.name}: rank {rank} ended")

    def say(self, rank: int, line: str) -> None:
        pipe = self.processes[rank].stdin
        assert pipe is not None
        pipe.write(line + "\n")
        pipe.flush()

    def facts(self) -> dict[str, Any]:
        """What the first rank's log says of its start and its memory."""
        text, found = self.logs[0].read_text(errors="replace"), dict[str, Any]()
        for name, pattern in LOG_LINES.items():
            if said := re.findall(pattern, text):
                found[name] = said[-1] if isinstance(said[-1], str) else "".join(said[-1])
        return found

    def tail(self) -> str:
        lines = [line for line in self.logs[-1].read_text(errors="replace").splitlines() if "Error" in line]
        return " | ".join(lines[-3:])[-600:]

    def kill(self) -> None:
        """At once, with everything below: what is left of a group that failed waits for it on the GPUs."""
        for pid in [pid for process in self.processes for pid in tree(process.pid)]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def heard(groups: list[Group], out: Path, within_s: float) -> dict[str, Group]:
    """Every group that comes up in time; the others are reported and ended."""
    began_s = time.monotonic()
    failed: dict[str, str] = {}

    def wait(group: Group) -> None:
        try:
            for rank in range(len(group.processes)):
                group.say(rank, "")
            group.ready = [group.hear(rank) for rank in range(len(group.processes))]
        except (RuntimeError, ValueError, OSError) as error:
            failed[group.layout.name] = f"{error}: {group.tail()}"
            group.kill()

    waiting = [threading.Thread(target=wait, args=(group,), daemon=True) for group in groups]
    for thread in waiting:
        thread.start()
    for thread in waiting:
        thread.join(max(0.1, began_s + within_s - time.monotonic()))
    up: dict[str, Group] = {}
    for group in groups:
        name = group.layout.name
        if len(group.ready) == len(group.processes):
            up[name] = group
            write(out, layout=name, phase="up", ready=group.ready[0], **group.facts())
        else:
            write(out, layout=name, phase="failed", why=failed.get(name, "not in time") + group.tail())
            group.kill()
    write(out, phase="gpu memory", mib=gpu_memory(), after_s=round(time.monotonic() - began_s, 1))
    return up


def measure(groups: list[Group], lanes: int, ids: int, seed: int, out: Path, **also: Any) -> None:
    """One task for each of these groups, all at the same time. `lanes` are of a whole group."""
    for number, group in enumerate(groups):
        size = len(group.processes)
        for rank in range(size):
            share = lanes // size
            task = Task(
                share, share * (4 if lanes <= 64 else 2), seed=seed + 17 * rank + 1000 * number, ids=ids
            )
            group.say(rank, msgspec.json.encode(task).decode())
    for group in groups:
        for rank in range(len(group.processes)):
            group.hear(rank)
    for group in groups:
        for rank in range(len(group.processes)):
            group.say(rank, "")
    for group in groups:
        parts = [group.hear(rank) for rank in range(len(group.processes))]
        took_s = max(part["last_s"] for part in parts) - min(part["began_s"] for part in parts)
        tokens = sum(part["tokens"] for part in parts)
        gpus = sum(len(one) for one in group.layout.gpus)

        def all_of(name: str, parts: list[dict[str, Any]] = parts) -> list[float]:
            return [1e3 * value for part in parts for value in part[name]]

        write(
            out, phase="measured", layout=group.layout.name, concurrency=lanes, ids=ids, gpus=gpus, **also,
            tokens_per_s=round(tokens / took_s, 1), per_gpu=round(tokens / took_s / gpus, 1), took_s=round(took_s, 2),
            ttft_p50_ms=round(quantile(all_of("ttft_s"), 0.5), 1),
            ttft_p99_ms=round(quantile(all_of("ttft_s"), 0.99), 1),
            tpot_p50_ms=round(quantile(all_of("tpot_s"), 0.5), 2), gap_p50_ms=round(quantile(all_of("gaps_s"), 0.5), 2),
            failures={key: value for part in parts for key, value in part["failures"].items()},
        )  # fmt: skip


def take_turn(turn: Turn, up: dict[str, Group], number: int, out: Path) -> None:
    """One round of some layouts at the same time. One that fails has no further turn."""
    names, levels, ids = turn
    groups = [up[name] for name in names if name in up]
    try:
        for lanes in levels if groups else ():
            if number == 0 and lanes == levels[0]:  # kernels that compile when first met
                measure(groups, lanes, ids, 77_000 + ids, out, round=-1)
            measure(groups, lanes, ids, 10_000 * number + lanes + 7 * ids, out, round=number)
    except (RuntimeError, ValueError, OSError) as error:
        write(
            out,
            event="broken off",
            layouts=names,
            why=str(error)[-300:] + " | ".join(g.tail() for g in groups),
        )
        for group in groups:
            group.kill()
            del up[group.layout.name]


def started(wave: str, args: argparse.Namespace) -> list[Group]:
    """The wave's processes, importing. Their models are written where they are not there yet."""
    folder = args.out.parent / "layout-logs"
    folder.mkdir(parents=True, exist_ok=True)
    for model in {layout.model for layout in WAVES[wave]}:
        if not Path("/tmp/models", model, "tokenizer_config.json").exists():
            gpu_models.write(Path("/tmp/models") / model, gpu_models.SHAPES[model])
    return [Group(layout, folder) for layout in WAVES[wave]]


def run(wave: str, groups: list[Group], args: argparse.Namespace, then: Callable[[], None]) -> None:
    """Measure a wave. `then` is called when it is up."""
    up = heard(groups, args.out, args.ready_s)
    then()
    try:
        began_s = time.monotonic()
        while args.wait_for and Path(args.wait_for).exists() and time.monotonic() - began_s < 60:
            time.sleep(0.2)  # something else still uses the GPUs
        for number in range(args.rounds):
            for turn in TURNS[wave]:
                if time.monotonic() - began_s > args.seconds:
                    write(args.out, wave=wave, event="out of time", round=number)
                    return
                take_turn(turn, up, number, args.out)
    finally:
        for group in up.values():
            group.kill()
            if group.loads:
                write(
                    args.out,
                    phase="rank loads",
                    wave=wave,
                    layout=group.layout.name,
                    windows=imbalance(group.loads),
                )
        time.sleep(3.0)  # GPUs' memory is given back


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--waves", default=",".join(WAVES))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--ready-s", type=float, default=150.0)
    parser.add_argument(
        "--seconds", type=float, default=110.0, help="of measuring, per wave: begin nothing after it"
    )
    parser.add_argument("--wait-for", default="", help="measure when this file is gone")
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    waves: list[str] = args.waves.split(",")
    groups = started(waves[0], args)
    for number, wave in enumerate(waves):
        later: list[Group] = []

        def prepare(number: int = number, later: list[Group] = later) -> None:
            """The next wave imports meanwhile: half a minute of one core a process."""
            if number + 1 < len(waves):
                later += started(waves[number + 1], args)

        run(wave, groups, args, prepare)
        groups = later


if __name__ == "__main__":
    main()
