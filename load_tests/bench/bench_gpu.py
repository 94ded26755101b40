"""The mesh on GPUs: beside vLLM's own server, and when a rank is killed. Run it on a host with two GPUs:

    python -m load_tests.bench.bench_gpu compare --model FOLDER --out results.jsonl
    python -m load_tests.bench.bench_gpu survive --shards 1 --model FOLDER --out results.jsonl

`compare`: data parallel attention and expert parallel MoE over both GPUs, twice: as the mesh (`expertmesh run --graph
prod`) and as vLLM's own OpenAI server, each with engines and KV cache of its own on the same GPUs; only the one that
is asked works. They take turns, round by round, with the same prompts.
`survive`: two groups of one GPU each under load; the engine core of one is killed, stopped, or hangs on its GPU.
With `--shared --shards 2` two groups of expert parallel ranks, each over the same two GPUs.
`scale`: for four GPUs (bench_gpu_scale.py).

FOLDER holds a config.json and a tokenizer; weights are random (`dummy_weights`): speed does not depend on them.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from .bench_gpu_load import Pool, Task
from .bench_gpu_mesh import KEY, Setup, Together, gpu_memory, save_logs, start_mesh, start_servers, write
from .bench_gpu_rounds import (
    PORT,
    PROCESSES,
    can_hang,
    forks,
    lose_one,
    measure,
    rounds,
    sweep_of,
    wait_for_engines,
)
from .bench_gpu_scale import scale
from .processes import Group


def compare(args: argparse.Namespace, group: Group, pool: Pool) -> None:
    setup = Setup(
        args.model,
        shards=args.shards,
        groups=args.groups,
        gateways=args.gateways,
        share=args.share,
        kv_gb=args.kv_gb,
    )
    folder = args.folder / "c"
    mesh = start_mesh(group, setup, folder, PORT, env=forks(args.fork))
    servers = Together(start_servers(group, setup, folder, 8300))
    try:
        took_s = mesh.wait_ready("/readyz", args.ready_s)
        write(args.out, event="mesh ready", after_s=round(took_s, 1), gpu_mib=gpu_memory())
        wait_for_engines(mesh, PORT, setup.engines, args)
        try:
            took_s = servers.wait_ready("/health", args.ready_s)
        except TimeoutError as error:
            write(args.out, event="no server", why=str(error)[-800:])
            rounds(args, pool, {"mesh": mesh})
        else:
            write(args.out, event="server ready", after_s=round(took_s, 1), gpu_mib=gpu_memory())
            rounds(args, pool, {"server": servers, "mesh": mesh})
        servers.stop()
        for how in args.how.split(",") if setup.groups > 1 else ():
            lose_one(args, pool, mesh, Task(mesh.ports, "bench", KEY), how, setup)
    finally:
        save_logs(folder, args.out.parent / "compare-logs")
        mesh.stop(3.0)


def survive(args: argparse.Namespace, group: Group, pool: Pool) -> None:
    setup = Setup(
        args.model,
        shards=args.shards,
        groups=2,
        gateways=args.gateways,
        share=args.share,
        kv_gb=args.kv_gb,
        shared=args.shared,
        stuck_after_s=args.stuck_after_s,
    )
    folder = args.folder / "s"
    env = forks(args.fork) | can_hang()
    mesh = start_mesh(group, setup, folder, PORT, env=env)
    try:
        took_s = mesh.wait_ready("/readyz", args.ready_s)
        write(args.out, event="first group ready", after_s=round(took_s, 1))
        wait_for_engines(mesh, PORT, setup.engines, args)
        task = Task(mesh.ports, "bench", KEY)
        warm = replace(task, concurrency=256, requests=512, answer_tokens=64, seed=900)
        measure(pool, mesh, args.out, arm="two groups", task=warm, phase="warm-up")
        for concurrency, requests, answer in sweep_of(args.sweep)[1:]:
            one = replace(
                task, concurrency=concurrency, requests=requests, answer_tokens=answer, seed=concurrency
            )
            measure(pool, mesh, args.out, arm="two groups", task=one, phase="alone")
        for number, how in enumerate(args.how.split(",")):
            if how != "restart":
                lose_one(args, pool, mesh, task, how, setup)
                continue
            save_logs(folder, args.out.parent / "survive-logs")
            mesh.stop(3.0)
            folder = args.folder / f"r{number}"
            mesh = start_mesh(group, setup, folder, PORT, env=env)
            took_s = mesh.wait_ready("/readyz", args.ready_s)
            write(args.out, event="restarted", after_s=round(took_s, 1))
            wait_for_engines(mesh, PORT, setup.engines, args)
            measure(pool, mesh, args.out, arm="two groups", task=replace(warm, seed=901), phase="warm-up")
    finally:
        save_logs(folder, args.out.parent / f"{folder.name}-logs")
        mesh.stop(3.0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["compare", "survive", "scale"])
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--folder", type=Path, default=Path("/tmp/bg"), help="short: Ray puts sockets below it"
    )
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--gateways", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=400.0, help="begin no measurement after so long")
    parser.add_argument("--ready-s", type=float, default=240.0)
    parser.add_argument("--back-s", type=float, default=120.0)
    parser.add_argument("--lanes", type=int, default=128, help="of survive: streams at once")
    parser.add_argument("--share", type=float, default=0.42, help="of each GPU's memory, per arm")
    parser.add_argument("--kv-gb", type=float, default=12.0)
    parser.add_argument(
        "--how",
        default="kill",
        help="of survive: kill, kill-rank, stop, hang, with a number of streams: kill:64; restart, of everything; "
        "several with commas",
    )
    parser.add_argument(
        "--groups", type=int, default=1, help="of compare: with several, one is lost at the end"
    )
    parser.add_argument("--fork", action=argparse.BooleanOptionalAction, default=True, help="of engine cores")
    parser.add_argument("--shared", action="store_true", help="of survive: both groups over the same GPUs")
    parser.add_argument("--stuck-after-s", type=float, default=1.0, help="of survive")
    parser.add_argument(
        "--sweep-two", default="1:40:8,64:192:128,512:1024:128,1024:2048:128", help="of two groups"
    )
    parser.add_argument("--sweep", default="", help="concurrency:requests:answer tokens, several with commas")
    parser.add_argument("--skip-wide", action="store_true", help="of scale: not the group of four")
    parser.add_argument("--skip-alone", action="store_true", help="of scale: not the single GPUs")
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    group = Group()
    try:
        with Pool(PROCESSES) as pool:
            {"compare": compare, "survive": survive, "scale": scale}[args.what](args, group, pool)
    finally:
        group.stop()
    sys.exit(0)


if __name__ == "__main__":
    main()
