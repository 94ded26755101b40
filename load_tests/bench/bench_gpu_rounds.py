"""Rounds of the GPU benchmarks: arms in turns, every line of results written as it comes, and a group that is lost."""

from __future__ import annotations

import argparse
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

from .bench_gpu_load import Pool, Report, Task, figures, quantile
from .bench_gpu_mesh import (
    KEY,
    Service,
    Setup,
    Together,
    engines_up,
    gpu_memory,
    rounded,
    write,
)
from .bench_gpu_steps import step_means_ms, step_sums
from .processes import command_line, tree

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


def forks(wanted: bool) -> dict[str, str]:
    return {"EXPERTMESH_FORK_ENGINE": "1" if wanted else "0"}


def can_hang() -> dict[str, str]:
    """Environment in which SIGUSR2 makes an engine core hang on its GPU."""
    here = str(Path(__file__).parent / "gpu_hang")
    return {"PYTHONPATH": os.pathsep.join(part for part in (here, os.environ.get("PYTHONPATH", "")) if part)}


def wait_for_engines(mesh: Service, port: int, wanted: int, args: argparse.Namespace) -> None:
    while engines_up(port) < wanted and time.monotonic() - mesh.began_s < args.ready_s:
        time.sleep(0.2)
    after_s = round(time.monotonic() - mesh.began_s, 1)
    write(args.out, event="engines up", engines=engines_up(port), after_s=after_s, gpu_mib=gpu_memory())


def rounds(
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


IN_FLIGHT_S = 0.01
"""Tokens that had left the engine still arrive so long after its end."""
HANG_S = 0.9
"""Silence that only a hang makes: a rank takes a second of it for one."""
STAYS_S = 3.0


def lose_one(args: argparse.Namespace, pool: Pool, mesh: Service, task: Task, how: str, setup: Setup) -> None:
    """Kill or stop one of two groups under load, wait until it is back, and say what the clients saw. `how`: kill,
    kill-rank, stop or hang (its GPU computes for ever), and how many streams, as in kill:64. A stream was struck when
    one of its pauses began with the loss: those that stayed wait, too, when the others' prompts come, but later."""
    how, _, lanes = how.partition(":")
    victim = _victim(mesh, "rank" if how == "kill-rank" else "engine core")
    task = replace(
        task, concurrency=int(lanes or args.lanes), answer_tokens=1024, requests=0,
        seed=7000 + sum(how.encode()) + int(lanes or 0),
    )  # fmt: skip
    pool.start(task)
    time.sleep(6.0)
    killed_s = time.monotonic()
    os.kill(victim, {"stop": signal.SIGSTOP, "hang": signal.SIGUSR2}.get(how, signal.SIGKILL))
    seen: list[tuple[float, int]] = []
    back_s = 0.0
    while (now_s := time.monotonic() - killed_s) < args.back_s:
        up = engines_up(mesh.ports[0])
        if not seen or seen[-1][1] != up:
            seen.append((round(now_s, 2), up))
        whole = up >= setup.engines and any(count < setup.engines for _, count in seen)
        if whole and now_s - seen[-1][0] > STAYS_S:  # one gateway's page may be a second behind the other's
            back_s = seen[-1][0]
            break
        time.sleep(0.1)
    pool.stop()
    report = pool.collect()
    alive = [a for a in report.answers if a.sent_s < killed_s < a.last_s]
    if how == "hang":  # it begins some steps after the signal, and shows as nothing but silence
        around = [[p for p in a.pauses if 0 < p[0] - killed_s < 2 and p[1] - p[0] > HANG_S] for a in alive]
    else:
        around = [
            [p for p in a.pauses if p[0] <= killed_s + IN_FLIGHT_S and p[1] > killed_s + IN_FLIGHT_S]
            for a in alive
        ]
    struck = [pauses[0] for pauses in around if pauses]
    began_s = min((begin_s for begin_s, _, _ in struck), default=killed_s) if how == "hang" else killed_s
    after = sorted(1e3 * (end_s - began_s) for _, end_s, _ in struck)
    longest = sorted(
        ((p[1] - p[0], p[0] - killed_s, p[2]) for a in report.answers for p in a.pauses), reverse=True
    )
    stayed = [
        max((p[1] - p[0] for p in a.pauses if killed_s < p[0] < killed_s + 5.0), default=0.0)
        for a, pauses in zip(alive, around, strict=True) if not pauses
    ]  # fmt: skip
    write(
        args.out, phase="loss", how=how, lanes=task.concurrency, victim=victim, requests=len(report.answers),
        unix_s=round(time.time() - time.monotonic() + killed_s, 3),
        failures=report.failures, streams_alive=len(alive), moved=len(struck),
        tokens_to_prefill=sum(task.prompt_tokens + tokens for _, _, tokens in struck),
        next_token_p50_ms=round(quantile(after, 0.5), 1), next_token_p90_ms=round(quantile(after, 0.9), 1),
        next_token_max_ms=round(max(after, default=0.0), 1), next_token_ms=[round(value) for value in after],
        stayed_pause_max_ms=round(1e3 * max(stayed, default=0.0), 1),
        within_1_s=sum(value <= 1000.0 for value in after), engines_up=seen, back_after_s=round(back_s, 1),
        began_after_s=round(began_s - killed_s, 3),
        longest=[(round(s, 2), round(at_s, 2), events) for s, at_s, events in longest[:12]],
        pause_max_of_all_ms=round(1e3 * max((a.pause_s for a in report.answers), default=0.0), 1),
    )  # fmt: skip


def _victim(mesh: Service, part: str) -> int:
    pids = sorted(mesh.parts().get(part, []))
    if not pids:
        lines = {pid: command_line(pid)[:80] for pid in tree(mesh.pid)}
        raise RuntimeError(f"no {part} among {lines}")
    return pids[-1]
