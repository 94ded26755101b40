"""Good traffic while a thousand hostile clients hang on, beside the same traffic alone; gateway, queue and engines real
but for Ray and the model.

    python -m load_tests.bench.bench_hostile --rounds 5

Arms take turns within one run: without, with. Good traffic: unary requests at Poisson arrivals on fresh connections,
and streams at 20 ms per token, both timed from when they should have been sent. Hostile clients: hostile_clients.py,
from other loopback addresses. Figures: p50 and p99 of both arms, their ratio round by round, the gateway's CPU.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from .bench_gateway import cpu_model
from .hostile_clients import ON_GRPC, ON_HTTP
from .mesh_processes import KEY, Rig, start
from .processes import Group, cpu_s

HOSTILE_FROM = "127.0.1.1"
Figures = dict[str, float]


def load(rig: Rig, *words: str) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "load_tests.bench.client",
        "--port",
        str(rig.http_port),
        "--key",
        KEY,
        *words,
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def hostile(
    rig: Rig, clients: int, seconds: float, only: str = "", sources: int = 1
) -> subprocess.Popen[str]:
    """Started, and all connected once."""
    command = [
        sys.executable, "-m", "load_tests.bench.hostile_clients", "--http", str(rig.http_port),
        "--grpc", str(rig.grpc_port), "--clients", str(clients), "--seconds", str(seconds), "--source", HOSTILE_FROM,
        "--only", only, "--sources", str(sources),
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    return process


def each_kind(rig: Rig, clients: int, seconds: float) -> None:
    """What the clients of one kind alone cost the gateway: where a defence is worth its while."""
    for kind in (*ON_HTTP, *ON_GRPC):
        crowd = hostile(rig, clients, seconds, kind.__name__)
        before_s, from_s = cpu_s([rig.gateway_pid]), time.monotonic()
        told = json.loads(crowd.communicate(timeout=60)[0])[kind.__name__]
        share = (cpu_s([rig.gateway_pid]) - before_s) / (time.monotonic() - from_s)
        print(f"{kind.__name__:20} {share:6.3f} of a core, {told}", flush=True)


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] * 1e3


def good_traffic(rig: Rig, args: argparse.Namespace, seed: int) -> Figures:
    """Both kinds at once for `args.seconds`. Milliseconds."""
    before_s, from_s = cpu_s([rig.gateway_pid]), time.monotonic()
    seconds = str(args.seconds)
    unary = load(
        rig,
        "--mode",
        "open",
        "--rate",
        str(args.rate),
        "--tokens",
        "1",
        "--seconds",
        seconds,
        "--seed",
        str(seed),
    )
    streams = load(
        rig, "--mode", "streams", "--concurrency", str(args.streams), "--tokens", "100", "--ramp", "1",
        "--seconds", seconds, "--seed", str(seed + 100),
    )  # fmt: skip
    short, long = (json.loads(process.communicate(timeout=120)[0]) for process in (unary, streams))
    took_s = time.monotonic() - from_s
    return {
        "short answers: p50 ms": quantile(short["ttft_s"], 0.5),
        "short answers: p99 ms": quantile(short["ttft_s"], 0.99),
        "streams: TTFT p99 ms": quantile(long["ttft_s"], 0.99),
        "streams: gap between tokens p50 ms": quantile(long["gaps_s"], 0.5),
        "streams: gap between tokens p99 ms": quantile(long["gaps_s"], 0.99),
        "failed": short["failed"] + long["failed"],
        "gateway CPU, share of a core": (cpu_s([rig.gateway_pid]) - before_s) / took_s,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--settle", type=float, default=6.0, help="after the hostile ones are up")
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=50.0, help="short answers a second")
    parser.add_argument("--streams", type=int, default=50)
    parser.add_argument("--sources", type=int, default=1, help="addresses that the hostile clients come from")
    parser.add_argument(
        "--max-offences", type=int, default=0, help="of one address before it is shut out; 0: never"
    )
    parser.add_argument("--each", action="store_true", help="the gateway's CPU for each kind of client alone")
    args = parser.parse_args()
    rows: dict[str, dict[str, list[float]]] = {}
    told: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="hostile-") as folder, ExitStack() as stack:
        group = Group()
        stack.callback(group.stop)
        rig = start(
            group, Path(folder), Path(folder) / "log",
            experts={"sim_step_s": 0.02, "max_num_seqs": 256},
            limits={
                "max_connections_per_address": 2000, "max_offences_per_address": args.max_offences,
                "header_timeout_s": 5.0, "body_timeout_s": 5.0,
            },
        )  # fmt: skip
        if args.each:
            each_kind(rig, args.clients // len((*ON_HTTP, *ON_GRPC)), args.seconds)
            return
        good_traffic(rig, args, 0)  # whatever is made at first use
        for number in range(args.rounds):
            # The order changes with the round, so that neither arm is always the one after.
            for arm in ("without", "with")[:: 1 if number % 2 == 0 else -1]:
                crowd = None
                if arm == "with":
                    crowd = hostile(rig, args.clients, args.settle + args.seconds + 3.0, sources=args.sources)
                    time.sleep(args.settle)
                for name, value in good_traffic(rig, args, number).items():
                    rows.setdefault(name, {}).setdefault(arm, []).append(value)
                if crowd is not None:
                    told = json.loads(crowd.communicate(timeout=60)[0])
                    time.sleep(1.0)
            print(
                f"round {number + 1}: "
                + ", ".join(f"{n} {r['without'][-1]:.2f}/{r['with'][-1]:.2f}" for n, r in rows.items()),
                flush=True,
            )
    print(report(args, rows, told))


def report(args: argparse.Namespace, rows: dict[str, dict[str, list[float]]], told: dict[str, Any]) -> str:
    """Medians and ranges, as Markdown."""
    lines = [
        f"Command: `python -m load_tests.bench.bench_hostile {' '.join(sys.argv[1:])}`. {args.rounds} rounds, arms "
        f"alternating, medians (range). Host: {os.cpu_count()} cores, {cpu_model()}, Python "
        f"{platform.python_version()}.",
        "",
        f"| measure | alone | with {args.clients} hostile clients | ratio |",
        "| --- | --- | --- | --- |",
    ]
    for name, arms in rows.items():
        alone, crowd = arms["without"], arms["with"]
        ratios = [b / a for a, b in zip(alone, crowd, strict=True) if a]
        shown = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})" if ratios else ""
        lines.append(f"| {name} | {spread(alone)} | {spread(crowd)} | {shown} |")
    lines += [
        "",
        "| hostile client | connected | cut | longest, s | told |",
        "| --- | --- | --- | --- | --- |",
    ]
    for kind, book in told.items():
        words = ", ".join(f"{line or 'nothing'} × {n}" for line, n in book["told"].items())
        lines.append(f"| {kind} | {book['connected']} | {book['cut']} | {book['longest_s']} | {words} |")
    return "\n".join(lines)


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}–{max(values):.2f})"


if __name__ == "__main__":
    main()
