"""The mesh on GPUs: beside vLLM's own server, and when a rank is killed. Run it on a host with two GPUs:

    python -m load_tests.bench.bench_gpu compare --model FOLDER --out results.jsonl
    python -m load_tests.bench.bench_gpu survive --model FOLDER --out results.jsonl

`compare`: data parallel attention and expert parallel MoE over both GPUs, twice: as the mesh (`expertmesh run --graph
prod`) and as vLLM's own OpenAI server, each with engines and KV cache of its own on the same GPUs; only the one that
is asked works. They take turns, round by round, with the same prompts.
`survive`: two groups of one GPU each under load; the engine core of one is killed, or stopped so that it hangs.

FOLDER holds a config.json and a tokenizer; weights are random (`dummy_weights`): speed does not depend on them.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

from .bench_gpu_load import Pool, Report, Task, figures, quantile
from .bench_gpu_mesh import (
    KEY,
    Service,
    Setup,
    engines_up,
    gpu_memory,
    rounded,
    save_logs,
    start_mesh,
    start_server,
    write,
)
from .processes import Group, command_line, tree

SWEEP = ((1, 24, 16), (32, 128, 128), (256, 768, 128), (512, 1024, 128))
"""(concurrency, requests, tokens of an answer). Seeds differ everywhere: a prompt that the mesh saw before would be
answered from its response cache."""
PROCESSES = 8


def measure(pool: Pool, service: Service, out: Path, *, arm: str, task: Task, **also: object) -> Report:
    """Run one task against one arm and write what came out, CPU per token by part included."""
    before = service.cpu_s()
    report = pool.run(task)
    after = service.cpu_s()
    tokens = max(1, report.tokens)
    cpu = {part: 1e6 * (after[part] - before.get(part, 0.0)) / tokens for part in after}
    found = figures(report)
    write(
        out, arm=arm, concurrency=task.concurrency, **also, **rounded(found), cpu_us_per_token=rounded(cpu, 1),
        failures=report.failures,
    )  # fmt: skip
    return report


def compare(args: argparse.Namespace, group: Group, pool: Pool) -> None:
    setup = Setup(args.model, shards=args.shards, gateways=args.gateways, share=args.share, kv_gb=args.kv_gb)
    folder = args.folder / "c"
    services: dict[str, Service] = {}
    if args.server_port:  # it was started before, in a session of its own
        ports = tuple(args.server_port + rank for rank in range(args.shards))
        services["server"] = Service(args.server_pid, args.server_log, ports)
    else:
        services["server"] = start_server(group, setup, folder, 8300)
    services["mesh"] = start_mesh(group, setup, folder, 8100)
    try:
        took_s = services["mesh"].wait_ready("/readyz", args.ready_s)
        write(args.out, event="mesh ready", after_s=round(took_s, 1), gpu_mib=gpu_memory())
        took_s = services["server"].wait_ready("/health", args.ready_s)
        write(args.out, event="server ready", after_s=round(took_s, 1), gpu_mib=gpu_memory())
        _rounds(args, pool, services)
    finally:
        save_logs(folder, args.out.parent / "compare-logs")
        services["mesh"].stop()


def _rounds(args: argparse.Namespace, pool: Pool, services: dict[str, Service]) -> None:
    until_s = time.monotonic() + args.seconds
    tasks = {
        arm: Task(service.ports, "bench", KEY if arm == "mesh" else "none")
        for arm, service in services.items()
    }
    for arm, service in services.items():
        task = replace(tasks[arm], concurrency=256, requests=384, answer_tokens=64, seed=900)
        measure(pool, service, args.out, arm=arm, task=task, phase="warm-up")
    for number in range(args.rounds):
        for concurrency, requests, answer in SWEEP:
            arms = list(services) if number % 2 == 0 else list(reversed(services))
            for arm in arms:
                if time.monotonic() > until_s:
                    write(args.out, event="out of time", round=number)
                    return
                task = replace(
                    tasks[arm], concurrency=concurrency, requests=requests, answer_tokens=answer,
                    seed=1000 * number + concurrency,
                )  # fmt: skip
                measure(pool, services[arm], args.out, arm=arm, task=task, phase="round", round=number)


def survive(args: argparse.Namespace, group: Group, pool: Pool) -> None:
    setup = Setup(args.model, groups=2, gateways=args.gateways, share=args.share, kv_gb=args.kv_gb)
    folder = args.folder / "s"
    mesh = start_mesh(group, setup, folder, 8100)
    try:
        took_s = mesh.wait_ready("/readyz", args.ready_s)
        write(args.out, event="first group ready", after_s=round(took_s, 1))
        while engines_up(8100) < 2 and time.monotonic() - mesh.began_s < args.ready_s:
            time.sleep(0.2)
        after_s = round(time.monotonic() - mesh.began_s, 1)
        write(args.out, event="both groups ready", after_s=after_s, gpu_mib=gpu_memory())
        task = Task(mesh.ports, "bench", KEY)
        warm = replace(task, concurrency=256, requests=512, answer_tokens=64, seed=900)
        measure(pool, mesh, args.out, arm="two groups", task=warm, phase="warm-up")
        for concurrency, requests, answer in SWEEP[1:]:
            one = replace(
                task, concurrency=concurrency, requests=requests, answer_tokens=answer, seed=concurrency
            )
            measure(pool, mesh, args.out, arm="two groups", task=one, phase="DP2 without EP")
        for how in args.how.split(","):
            _lose_one(args, pool, mesh, task, how)
    finally:
        save_logs(folder, args.out.parent / "survive-logs")
        mesh.stop()


def _lose_one(args: argparse.Namespace, pool: Pool, mesh: Service, task: Task, how: str) -> None:
    """Kill or stop one of two groups under load, wait until it is back, and say what the clients saw."""
    victim = _victim(mesh, "rank" if how == "kill-rank" else "engine core")
    pool.start(
        replace(task, concurrency=args.lanes, answer_tokens=1024, requests=0, seed=7000 + sum(how.encode()))
    )
    time.sleep(6.0)
    killed_s = time.monotonic()
    os.kill(victim, signal.SIGSTOP if how == "stop" else signal.SIGKILL)
    seen: list[tuple[float, int]] = []
    back_s = 0.0
    while time.monotonic() - killed_s < args.back_s:
        up = engines_up(8100)
        if not seen or seen[-1][1] != up:
            seen.append((round(time.monotonic() - killed_s, 2), up))
        if up >= 2 and any(count == 1 for _, count in seen):
            back_s = time.monotonic() - killed_s
            break
        time.sleep(0.1)
    time.sleep(3.0)
    pool.stop()
    report = pool.collect()
    alive = [a for a in report.answers if a.sent_s < killed_s < a.last_s]
    struck = [a for a in alive if a.pause_end_s - a.pause_s <= killed_s + 0.05 and a.pause_end_s > killed_s]
    pauses = sorted(1e3 * answer.pause_s for answer in struck)
    moved = [pause for pause in pauses if pause > 3 * statistics.median(report.gaps_s) * 1e3]
    write(
        args.out, phase="loss", how=how, victim=victim, requests=len(report.answers), failures=report.failures,
        streams_alive=len(alive), paused=len(moved),
        pause_p50_ms=round(quantile(moved, 0.5), 1), pause_max_ms=round(max(moved, default=0.0), 1),
        engines_up=seen, back_after_s=round(back_s, 1),
        pause_max_of_all_ms=round(1e3 * max((a.pause_s for a in report.answers), default=0.0), 1),
    )  # fmt: skip


def _victim(mesh: Service, part: str) -> int:
    pids = sorted(mesh.parts().get(part, []))
    if not pids:
        lines = {pid: command_line(pid)[:80] for pid in tree(mesh.pid)}
        raise RuntimeError(f"no {part} among {lines}")
    return pids[-1]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["compare", "survive"])
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
        "--how", default="kill", help="of survive: kill, kill-rank, stop; several with commas"
    )
    parser.add_argument("--server-port", type=int, default=0, help="of a server that was started before")
    parser.add_argument("--server-pid", type=int, default=0)
    parser.add_argument("--server-log", type=Path, default=Path(os.devnull))
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    group = Group()
    try:
        with Pool(PROCESSES) as pool:
            {"compare": compare, "survive": survive}[args.what](args, group, pool)
    finally:
        group.stop()
    sys.exit(0)


if __name__ == "__main__":
    main()
