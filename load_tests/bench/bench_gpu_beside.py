"""Two models in one mesh on GPUs: each alone, both at once, and the second's only engine killed under load of both.

    python -m load_tests.bench.bench_gpu_beside --model FOLDER --second FOLDER --out results.jsonl

Run it on a host with two GPUs, or on one with --shared: Ray is then told of it twice. Both folders as for bench_gpu.
To be seen: the first model's streams do not notice, none of the second's fails, and they go on when its engine is back.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from .bench_gpu_load import Pool, Report, Task, figures, quantile
from .bench_gpu_mesh import KEY, Service, engines_up, gpu_memory, rounded, save_logs, write
from .bench_gpu_rounds import PORT, forks, wait_for_engines
from .processes import Group, command_line, tree

COMMON = "max_model_len=4096,max_num_seqs=256,dummy_weights=true,max_num_batched_tokens=8192,stuck_after_s=3"


def start(group: Group, args: argparse.Namespace) -> Service:
    """`expertmesh run` with both models. Ports and folder as in bench_gpu."""
    folder: Path = args.folder / "b"
    folder.mkdir(parents=True, exist_ok=True)
    size = f"gpu_kv_cache_gb={args.kv_gb},gpu_memory_utilization={args.share}"
    options = [f"http_port={PORT}", f"grpc_port={PORT + 1}", f"model={args.model}", "name=first", "shards=1"]
    command = [
        "env", "-C", str(folder), sys.executable, "-m", "services.cli.main", "run", "--graph", "prod",
        *options, *COMMON.split(","), *size.split(","), "--also", f"second={args.second},{COMMON},{size}",
    ]  # fmt: skip
    env = {"EXPERTMESH_API_KEY": KEY, "PYTHONUNBUFFERED": "1", "TMPDIR": str(folder), **forks(True)}
    if args.shared:
        env |= {"CUDA_VISIBLE_DEVICES": "0,0", "RAY_OVERRIDE_RESOURCES": json.dumps({"GPU": 2})}
    log = folder / "mesh.log"
    return Service(group.start(command, env=env, log=log).pid, log, (PORT,))


def engine_of(mesh: Service, name: str) -> int:
    """The engine core of a model: a fork of its rank, whose title says the application, under a name of its own."""
    app = "ray::ServeReplica:" + ("beside-0:" if name == "second" else "default:")
    for pid in tree(mesh.pid):
        with suppress(OSError):
            is_engine = Path(f"/proc/{pid}/comm").read_text().startswith("VLLM::EngineCor")
            if is_engine and command_line(pid).startswith(app):
                return pid
    raise RuntimeError(f"no engine core of {name}")


def both(one: Pool, other: Pool, first: Task, second: Task) -> tuple[Report, Report]:
    one.start(first)
    other.start(second)
    return one.collect(), other.collect()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--second", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/bs"))
    parser.add_argument("--share", type=float, default=0.44)
    parser.add_argument("--kv-gb", type=float, default=5.0)
    parser.add_argument("--ready-s", type=float, default=200.0)
    parser.add_argument("--back-s", type=float, default=70.0)
    parser.add_argument("--shared", action="store_true")
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    group = Group()
    try:
        with Pool(4) as one, Pool(4) as other:
            measure(args, group, one, other)
    finally:
        group.stop()


def measure(args: argparse.Namespace, group: Group, one: Pool, other: Pool) -> None:
    mesh = start(group, args)
    try:
        took_s = mesh.wait_ready("/readyz", args.ready_s)
        write(args.out, event="first model ready", after_s=round(took_s, 1))
        wait_for_engines(mesh, PORT, 2, args)
        first = Task((PORT,), "first", KEY, requests=192, concurrency=64, answer_tokens=64, seed=1)
        second = replace(first, model="second", seed=2)
        both(one, other, first, second)
        for label, report in (
            ("first alone", one.run(replace(first, seed=3))),
            ("second alone", other.run(replace(second, seed=4))),
        ):
            write(args.out, arm=label, **rounded(figures(report)), failures=report.failures)
        together = both(one, other, replace(first, seed=5), replace(second, seed=6))
        for label, report in zip(("first beside", "second beside"), together, strict=True):
            write(args.out, arm=label, **rounded(figures(report)), failures=report.failures)
        lose_second(args, mesh, one, other, first, second)
        write(args.out, event="end", engines=engines_up(PORT), gpu_mib=gpu_memory())
    finally:
        save_logs(args.folder / "b", args.out.parent / "beside-logs")
        mesh.stop(5.0)


def lose_second(
    args: argparse.Namespace, mesh: Service, one: Pool, other: Pool, first: Task, second: Task
) -> None:
    """Its only engine is killed; both loads go on until it is back, and a little longer."""
    long = {"requests": 0, "answer_tokens": 512, "concurrency": 32}
    one.start(replace(first, **long, seed=7))
    other.start(replace(second, **long, seed=8))
    time.sleep(4.0)
    os.kill(engine_of(mesh, "second"), signal.SIGKILL)
    killed_s, back_s, fell = time.monotonic(), 0.0, False
    while not back_s and time.monotonic() - killed_s < args.back_s:
        up = engines_up(PORT)
        fell = fell or up < 2
        back_s = time.monotonic() - killed_s if fell and up == 2 else 0.0
        time.sleep(0.2)
    time.sleep(3.0)
    one.stop()
    other.stop()
    for label, report in (("first", one.collect()), ("second, killed", other.collect())):
        pauses = [a.pause_s for a in report.answers if a.sent_s < killed_s < a.last_s]
        write(
            args.out, arm=label, phase="loss", requests=len(report.answers), failures=report.failures,
            streams_alive=len(pauses), pause_p50_ms=round(1e3 * quantile(pauses, 0.5)),
            pause_max_ms=round(1e3 * max(pauses, default=0.0)), back_after_s=round(back_s, 1),
        )  # fmt: skip


if __name__ == "__main__":
    main()
