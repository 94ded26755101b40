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

from . import bench_gpu_layouts as layouts
from .bench_gpu_load import Pool, Report, Task, figures, quantile
from .bench_gpu_mesh import (
    KEY,
    Service,
    Setup,
    Together,
    engines_up,
    gpu_memory,
    rounded,
    save_logs,
    start_mesh,
    start_servers,
    step_means_ms,
    step_sums,
    write,
)
from .processes import Group, command_line, tree

SWEEP = ((1, 24, 16), (32, 128, 128), (256, 768, 128), (512, 1024, 128))
"""(concurrency, requests, tokens of an answer). Seeds differ everywhere: a prompt that the mesh saw before would be
answered from its response cache."""
PROCESSES = 16
PORT = 8100


def sweep_of(text: str) -> tuple[tuple[int, int, int], ...]:
    """`1:24:16,32:128:128` as SWEEP."""
    rows = [tuple(int(part) for part in row.split(":")) for row in text.split(",") if row]
    return tuple((row[0], row[1], row[2]) for row in rows) or SWEEP


def measure(
    pool: Pool, service: Service | Together, out: Path, *, arm: str, task: Task, **also: object
) -> Report:
    """Run one task against one arm and write what came out, CPU per token by part included."""
    steps = step_sums(service.ports[0]) if task.concurrency == 1 and isinstance(service, Service) else {}
    before = service.cpu_s()
    report = pool.run(task)
    after = service.cpu_s()
    if task.concurrency == 1 and isinstance(service, Service):
        also["steps_ms"] = rounded(step_means_ms(steps, step_sums(service.ports[0])), 3)
    tokens = max(1, report.tokens)
    cpu = {part: 1e6 * (after[part] - before.get(part, 0.0)) / tokens for part in after}
    found = figures(report)
    write(
        out, arm=arm, concurrency=task.concurrency, **also, **rounded(found), cpu_us_per_token=rounded(cpu, 1),
        failures=report.failures,
    )  # fmt: skip
    return report


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
    mesh = start_mesh(group, setup, folder, PORT, env=_forks(args.fork))
    servers = Together(start_servers(group, setup, folder, 8300))
    try:
        took_s = mesh.wait_ready("/readyz", args.ready_s)
        write(args.out, event="mesh ready", after_s=round(took_s, 1), gpu_mib=gpu_memory())
        _wait_for_engines(mesh, PORT, setup.engines, args)
        try:
            took_s = servers.wait_ready("/health", args.ready_s)
        except TimeoutError as error:
            write(args.out, event="no server", why=str(error)[-800:])
            _rounds(args, pool, {"mesh": mesh})
        else:
            write(args.out, event="server ready", after_s=round(took_s, 1), gpu_mib=gpu_memory())
            _rounds(args, pool, {"server": servers, "mesh": mesh})
        servers.stop()
        for how in args.how.split(",") if setup.groups > 1 else ():
            _lose_one(args, pool, mesh, Task(mesh.ports, "bench", KEY), how, setup)
    finally:
        save_logs(folder, args.out.parent / "compare-logs")
        mesh.stop(3.0)


def _forks(wanted: bool) -> dict[str, str]:
    return {"EXPERTMESH_FORK_ENGINE": "1" if wanted else "0"}


def _wait_for_engines(mesh: Service, port: int, wanted: int, args: argparse.Namespace) -> None:
    while engines_up(port) < wanted and time.monotonic() - mesh.began_s < args.ready_s:
        time.sleep(0.2)
    after_s = round(time.monotonic() - mesh.began_s, 1)
    write(args.out, event="engines up", engines=engines_up(port), after_s=after_s, gpu_mib=gpu_memory())


def _rounds(
    args: argparse.Namespace, pool: Pool, services: dict[str, Service | Together], label: str = ""
) -> None:
    until_s = time.monotonic() + args.seconds
    tasks = {
        arm: Task(service.ports, "bench", KEY if arm == "mesh" else "none")
        for arm, service in services.items()
    }
    for arm, service in services.items():
        task = replace(tasks[arm], concurrency=256, requests=384, answer_tokens=64, seed=900)
        measure(pool, service, args.out, arm=arm, task=task, phase="warm-up", label=label)
    for number in range(args.rounds):
        for concurrency, requests, answer in sweep_of(args.sweep):
            arms = list(services) if number % 2 == 0 else list(reversed(services))
            for arm in arms:
                if time.monotonic() > until_s:
                    write(args.out, event="out of time", round=number)
                    return
                task = replace(
                    tasks[arm], concurrency=concurrency, requests=requests, answer_tokens=answer,
                    seed=1000 * number + concurrency,
                )  # fmt: skip
                measure(
                    pool,
                    services[arm],
                    args.out,
                    arm=arm,
                    task=task,
                    phase="round",
                    round=number,
                    label=label,
                )


def scale(args: argparse.Namespace, group: Group, pool: Pool) -> None:
    """Four GPUs, one arm after the other: groups that step together and share GPUs stop each other. The mesh before
    one group of four; vLLM's own server over four ranks; one GPU alone, with quantised weights too; the mesh before
    two groups of two, of which one is lost. Ranks share GPUs while others start, so they may be silent for longer."""
    wide = Setup(
        args.model, shards=4, gateways=args.gateways, share=0.1, kv_gb=args.kv_gb, stuck_after_s=10.0
    )
    folder = args.folder / "c"
    servers = Together(start_servers(group, wide, folder, 8300))
    time.sleep(15.0)
    mesh = start_mesh(group, wide, folder, PORT, env=_forks(args.fork))
    try:
        took_s = mesh.wait_ready("/readyz", args.ready_s)
        write(args.out, event="mesh ready", shards=4, after_s=round(took_s, 1))
        _wait_for_engines(mesh, PORT, wide.engines, args)
        took_s = servers.wait_ready("/health", args.ready_s)
        write(args.out, event="server ready", shards=4, after_s=round(took_s, 1), gpu_mib=gpu_memory())
        _rounds(args, pool, {"mesh": mesh}, label="DP4+EP4")
    except TimeoutError as error:
        write(args.out, event="mesh broken off", why=str(error)[-600:])
    save_logs(folder, args.out.parent / "wide-logs")
    mesh.stop(3.0)
    try:
        servers.wait_ready("/health", 30.0)
        _rounds(args, pool, {"server": servers}, label="DP4+EP4")
    except TimeoutError as error:
        write(args.out, event="no server", why=str(error)[-600:])
    servers.stop()
    _two_groups(_second(args), group, pool)


def _second(args: argparse.Namespace) -> argparse.Namespace:
    """For the second mesh: one round, and as many streams as its cache holds."""
    return argparse.Namespace(**{**vars(args), "rounds": 1, "sweep": args.sweep_two})


def _two_groups(args: argparse.Namespace, group: Group, pool: Pool) -> None:
    setup = Setup(
        args.model, shards=2, groups=2, gateways=args.gateways, share=0.1, kv_gb=5.2, stuck_after_s=10.0
    )
    folder = args.folder / "s"
    mesh = start_mesh(group, setup, folder, PORT + 100, env=_forks(args.fork))
    single = [one for one in layouts.WAVES["large"] if len(one.gpus) == 1 and not args.skip_alone]
    alone = [layouts.Group(one, args.out.parent) for one in single]
    try:
        took_s = mesh.wait_ready("/readyz", args.ready_s)
        write(args.out, event="first group ready", shards=2, after_s=round(took_s, 1))
        _wait_for_engines(mesh, PORT + 100, setup.engines, args)
        _alone(alone, args)
        _rounds(args, pool, {"mesh": mesh}, label="two of DP2+EP2")
        for how in args.how.split(","):
            _lose_one(args, pool, mesh, Task(mesh.ports, "bench", KEY), how, setup)
    finally:
        for one in alone:
            one.kill()
        save_logs(folder, args.out.parent / "two-logs")
        mesh.stop(3.0)


def _alone(groups: list[layouts.Group], args: argparse.Namespace) -> None:
    """One GPU each, at the same time; then they are ended."""
    try:
        up = list(layouts.heard(groups, args.out, 25.0).values())
        for number, lanes in ((-1, 32), (0, 32), (0, 256), (1, 32), (1, 256)) if up else ():
            layouts.measure(up, lanes, 0, 10_000 * number + lanes, args.out, round=number)
    except (RuntimeError, ValueError, OSError) as error:
        write(args.out, event="one GPU broken off", why=str(error)[-300:])
    for one in groups:
        one.kill()


def survive(args: argparse.Namespace, group: Group, pool: Pool) -> None:
    setup = Setup(
        args.model, shards=args.shards, groups=2, gateways=args.gateways, share=args.share, kv_gb=args.kv_gb
    )
    folder = args.folder / "s"
    mesh = start_mesh(group, setup, folder, PORT, env=_forks(args.fork))
    try:
        took_s = mesh.wait_ready("/readyz", args.ready_s)
        write(args.out, event="first group ready", after_s=round(took_s, 1))
        _wait_for_engines(mesh, PORT, setup.engines, args)
        task = Task(mesh.ports, "bench", KEY)
        warm = replace(task, concurrency=256, requests=512, answer_tokens=64, seed=900)
        measure(pool, mesh, args.out, arm="two groups", task=warm, phase="warm-up")
        for concurrency, requests, answer in SWEEP[1:]:
            one = replace(
                task, concurrency=concurrency, requests=requests, answer_tokens=answer, seed=concurrency
            )
            measure(pool, mesh, args.out, arm="two groups", task=one, phase="alone")
        for how in args.how.split(","):
            _lose_one(args, pool, mesh, task, how, setup)
    finally:
        save_logs(folder, args.out.parent / "survive-logs")
        mesh.stop()


def _lose_one(
    args: argparse.Namespace, pool: Pool, mesh: Service, task: Task, how: str, setup: Setup
) -> None:
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
        up = engines_up(mesh.ports[0])
        if not seen or seen[-1][1] != up:
            seen.append((round(time.monotonic() - killed_s, 2), up))
        if up >= setup.engines and any(count < setup.engines for _, count in seen):
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
        "--how", default="kill", help="of survive: kill, kill-rank, stop; several with commas"
    )
    parser.add_argument(
        "--groups", type=int, default=1, help="of compare: with several, one is lost at the end"
    )
    parser.add_argument("--fork", action=argparse.BooleanOptionalAction, default=True, help="of engine cores")
    parser.add_argument(
        "--sweep-two", default="1:40:8,64:192:128,512:1024:128,1024:2048:128", help="of two groups"
    )
    parser.add_argument("--sweep", default="", help="concurrency:requests:answer tokens, several with commas")
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
