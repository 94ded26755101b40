"""`make bench-gateway`: what a token and a request cost in the mesh, beside its peers in the same run.

Arms alternate round by round; the client is a process of its own; CPU is read from /proc over all processes of an
arm, the engine apart where it is a process of its own. Results: a table on the screen and a dated file.
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
from datetime import date
from pathlib import Path
from typing import Any

from .arms import KEY, Arm, start_engine, start_haproxy, start_mesh, start_router, start_serve
from .processes import Group, cpu_s

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "benchmarks"
Rows = dict[str, dict[str, list[float]]]


class Bench:
    """Collects figures: name of the measure → arm → one value per round."""

    def __init__(self, args: argparse.Namespace, group: Group, folder: Path) -> None:
        self.args, self.group, self.folder = args, group, folder
        self.rows: Rows = {}
        self.log = folder / "log.txt"

    def note(self, measure: str, arm: str, value: float) -> None:
        self.rows.setdefault(measure, {}).setdefault(arm, []).append(value)
        print(f"    {measure:58} {arm:44} {value:10.2f}", flush=True)

    def client(self, arm: Arm, path: str, *arguments: str) -> subprocess.Popen[str]:
        command = [
            sys.executable,
            "-m",
            "load_tests.bench.client",
            "--port",
            str(arm.port),
            "--key",
            KEY,
            *arguments,
        ]
        if path:
            command += ["--path", path]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def paced(self, arm: Arm, label: str, path: str, concurrency: int, seed: int) -> None:
        """CPU per streamed token in the steady state."""
        seconds = self.args.seconds
        client = self.client(
            arm, path, "--mode", "streams", "--concurrency", str(concurrency), "--tokens", "100", "--ramp", "2",
            "--seconds", str(seconds + 3), "--seed", str(seed),
        )  # fmt: skip
        time.sleep(3.0)
        parts = arm.parts()
        before, from_s = {part: cpu_s(pids) for part, pids in parts.items()}, time.monotonic()
        time.sleep(seconds)
        after, to_s = {part: cpu_s(pids) for part, pids in parts.items()}, time.monotonic()
        out = told(client)
        if out is None:
            self.note(f"no figure: its client failed, c={concurrency}", label, 1)
            return
        buckets = {int(at): n for at, n in out["tokens"].items()}
        tokens = sum(n for at, n in buckets.items() if from_s <= at * out["bucket_s"] < to_s)
        if not tokens:
            self.note(f"failed streams, c={concurrency}", label, out["failed"])
            return
        spent = {part: (after[part] - before[part]) / tokens * 1e6 for part in parts}
        self.note(
            f"CPU µs per token, c={concurrency}, all but the engine",
            label,
            sum(v for p, v in spent.items() if p != "engine"),
        )
        if len(spent) > 1:
            for part, value in spent.items():
                self.note(f"CPU µs per token, c={concurrency}: {part}", label, value)
        self.note(f"tokens per second, c={concurrency}", label, tokens / (to_s - from_s))
        gaps = sorted(out["gaps_s"])
        self.note(f"ITL p99 ms, c={concurrency}", label, gaps[int(len(gaps) * 0.99)] * 1e3)
        if out["failed"]:
            self.note(f"failed streams, c={concurrency}", label, out["failed"])

    def idle(self, arm: Arm, label: str) -> float:
        """Share of a core that an arm takes without any request, its engine left out."""
        pids = [pid for part, of_part in arm.parts().items() if part != "engine" for pid in of_part]
        before, from_s = cpu_s(pids), time.monotonic()
        time.sleep(self.args.seconds / 2)
        share = (cpu_s(pids) - before) / (time.monotonic() - from_s)
        self.note("idle: CPU ms per second, all but the engine", label, share * 1e3)
        return share

    def unary(
        self,
        arm: Arm,
        label: str,
        path: str,
        what: str,
        concurrency: int,
        seed: int,
        idle: float,
        *arguments: str,
    ) -> None:
        """CPU per whole request, closed loop. An engine that answers 60 such requests per second has each of them pay a
        60th of what the arm takes `idle`: so that is also taken off."""
        parts = arm.parts()
        before, from_s = {part: cpu_s(pids) for part, pids in parts.items()}, time.monotonic()
        client = self.client(
            arm, path, "--mode", "unary", "--concurrency", str(concurrency), "--seconds", str(self.args.seconds),
            "--seed", str(seed), *arguments,
        )  # fmt: skip
        out = told(client)
        if out is None:
            self.note(f"{what}: no figure, its client failed", label, 1)
            return
        after, to_s = {part: cpu_s(pids) for part, pids in parts.items()}, time.monotonic()
        done = sum(out["done"].values())
        if not done or out["failed"]:
            self.note(f"{what}: failed", label, out["failed"])
        if done:
            spent = {part: (after[part] - before[part]) / done * 1e6 for part in parts}
            self.note(
                f"{what}: CPU µs, all but the engine",
                label,
                sum(v for p, v in spent.items() if p != "engine"),
            )
            idle_us = idle * (to_s - from_s) / done * 1e6
            self.note(
                f"{what}: CPU µs, all but the engine, idle taken off",
                label,
                sum(v for p, v in spent.items() if p != "engine") - idle_us,
            )
            if len(spent) > 1:
                for part, value in spent.items():
                    self.note(f"{what}: CPU µs, {part}", label, value)
            self.note(f"{what}: requests per second", label, done / (to_s - from_s))
            latencies = sorted(out["latency_s"])
            self.note(f"{what}: p99 ms", label, latencies[int(len(latencies) * 0.99)] * 1e3)

    def calls(self, arm: Arm, label: str, seed: int) -> None:
        """Latency of whole 1 KB requests in an open loop, at `--call-rate` a second: half of what the mesh can."""
        rate = self.args.call_rate
        client = self.client(
            arm, "", "--mode", "calls", "--concurrency", "256", "--rate", str(rate), "--seconds",
            str(self.args.seconds), "--seed", str(seed),
        )  # fmt: skip
        out = told(client)
        if out is None or out["failed"]:
            self.note(f"1 KB, {rate:g} a second: failed", label, out["failed"] if out is not None else 1)
        if out is not None:
            latencies = sorted(out["latency_s"])
            for name, share in (("p50", 0.5), ("p99", 0.99)):
                value = latencies[int(len(latencies) * share)] * 1e3
                self.note(f"1 KB, {rate:g} a second: {name} ms", label, value)

    def added_latency(self, mesh: Arm, seed: int) -> None:
        """TTFT and ITL through the mesh beside the engine asked directly, open loop, 70% of two engines' slots."""
        rate = (
            0.7 * 128 / (50 * 0.02)
        )  # half the slots of one engine's 256, so that the 2 cores are not the queue
        rank = self.direct_rank()
        command = [
            sys.executable, "-m", "load_tests.bench.link_client", "--address", rank["address"], "--key", rank["key"],
            "--rate", str(rate), "--seconds", str(self.args.seconds * 2), "--seed", str(seed),
        ]  # fmt: skip
        direct = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
        client = self.client(
            mesh, "", "--mode", "open", "--rate", str(rate), "--tokens", "50", "--seconds", str(self.args.seconds * 2),
            "--seed", str(seed), "--temperature", "0",
        )  # fmt: skip
        through = json.loads(client.communicate(timeout=120)[0])
        for arm, out in (("engine asked directly", direct), ("expertmesh", through)):
            ttft, gaps = sorted(out["ttft_s"]), sorted(out["gaps_s"])
            self.note("TTFT p50 ms, open loop", arm, ttft[len(ttft) // 2] * 1e3)
            self.note("TTFT p99 ms, open loop", arm, ttft[int(len(ttft) * 0.99)] * 1e3)
            self.note("ITL p99 ms, open loop", arm, gaps[int(len(gaps) * 0.99)] * 1e3)
            if out["failed"]:
                self.note("failed, open loop", arm, out["failed"])

    def direct_rank(self) -> dict[str, str]:
        if not hasattr(self, "_rank"):
            settings = {
                "engine": "sim",
                "model_name": "sim",
                "sim_step_s": 0.02,
                "max_num_seqs": 256,
                "max_model_len": 131072,
                "sim_prefill_tokens_per_s": 1e8,
            }
            process = self.group.python("services.experts", json.dumps(settings), "{}", pipe=True)
            assert process.stdout is not None
            self._rank = json.loads(process.stdout.readline())
        return self._rank


def told(client: subprocess.Popen[str]) -> dict[str, Any] | None:
    """What a client measured. None: it could not connect, or failed otherwise; its words are on standard error. A peer
    that stands still between its turns may refuse connections afterwards: that is no reason to lose everybody's."""
    text, _ = client.communicate(timeout=180)
    return json.loads(text) if client.returncode == 0 else None


def phase_paced(bench: Bench, args: argparse.Namespace) -> None:
    """Tokens at an engine's pace, 20 ms."""
    engine = start_engine(bench.group, 0.02)
    mesh = start_mesh(bench.group, bench.folder / "paced", 0.02, bench.log)
    arms: list[tuple[Arm, str, str]] = [(mesh, mesh.name, "")]
    arms.append((start_haproxy(bench.group, bench.folder, engine), "HAProxy", ""))
    router = start_router(bench.group, bench.folder, engine, bench.log)
    if router is not None:
        arms.append((router, router.name, ""))
    if not args.no_serve:
        arms += serve_arms(bench, 0.02)
    for number in range(args.rounds):
        print(f"round {number + 1} of {args.rounds}, paced", flush=True)
        for arm, label, path in arms:
            for concurrency in args.concurrency:
                if arm.contains_engine and concurrency > 100 and number >= args.serve_rounds:
                    continue
                with arm.running():
                    bench.paced(arm, label, path, concurrency, number)
        bench.added_latency(mesh, number)


def phase_instant(bench: Bench, args: argparse.Namespace) -> None:
    """Whole answers at once: what a request costs."""
    engine = start_engine(bench.group, 0.0)
    mesh = start_mesh(bench.group, bench.folder / "instant", 0.0, bench.log)
    arms: list[tuple[Arm, str, str]] = [(mesh, mesh.name, "")]
    arms.append((start_haproxy(bench.group, bench.folder, engine), "HAProxy", ""))
    router = start_router(bench.group, bench.folder, engine, bench.log)
    if router is not None:
        arms.append((router, router.name, ""))
    if not args.no_serve:
        arms += serve_arms(bench, 0.0)
    for number in range(args.rounds):
        print(f"round {number + 1} of {args.rounds}, instant", flush=True)
        for arm, label, path in arms:
            with arm.running():
                idle = bench.idle(arm, label)
                bench.unary(arm, label, path, "1 KB, 16 tokens", 16, number, idle)
                if not arm.contains_engine:
                    bench.calls(arm, label, number + 100)
                large = ("--prompt-bytes", "220000", "--tokens", "1")
                bench.unary(arm, label, path, "220 KB, 1 token", 8, number, idle, *large)


def serve_arms(bench: Bench, step_s: float) -> list[tuple[Arm, str, str]]:
    found: list[tuple[Arm, str, str]] = []
    for tuned in (False, True):
        arm = start_serve(bench.group, step_s, bench.log, tuned=tuned)
        arm.pause()
        short = "Serve tuned" if tuned else "Serve"
        found += [(arm, f"{short}, ingress → engine", "/two"), (arm, f"{short}, four deployments", "/four")]
        if tuned:
            found.append((arm, f"{short}, one deployment", "/one"))
    return found


def report(bench: Bench, args: argparse.Namespace) -> str:
    """Medians and ranges, as Markdown."""
    lines = [
        f"# Gateway: what a token and a request cost ({date.today().isoformat()})",
        "",
        command_and_host(args),
        "",
        "| measure | arm | median | range |",
        "| --- | --- | --- | --- |",
    ]
    for measure, by_arm in sorted(bench.rows.items()):
        for arm, values in by_arm.items():
            lines.append(
                f"| {measure} | {arm} | {statistics.median(values):,.2f} | {min(values):,.2f}–{max(values):,.2f} |"
            )
    return "\n".join(lines) + "\n"


def command_and_host(args: argparse.Namespace) -> str:
    return (
        f"Command: `python -m load_tests.bench.bench_gateway {' '.join(sys.argv[1:])}`. {args.rounds} rounds, arms "
        f"alternating, medians (range). Host: {os.cpu_count()} cores, {cpu_model()}, Python "
        f"{platform.python_version()}. Rows of Ray Serve contain their engine."
    )


def cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve-rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[100, 300])
    parser.add_argument(
        "--no-serve", action="store_true", help="leave the Ray Serve peers out (they take minutes)"
    )
    parser.add_argument("--call-rate", type=float, default=1500.0)
    parser.add_argument("--phases", nargs="+", default=["paced", "instant"])
    parser.add_argument("--out", type=Path, default=RESULTS / f"{date.today().isoformat()}-gateway.md")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        bench = None
        for phase in args.phases:
            group = Group()
            rows = bench.rows if bench is not None else {}
            bench = Bench(args, group, Path(folder))
            bench.rows = rows
            try:
                (phase_paced if phase == "paced" else phase_instant)(bench, args)
            finally:
                group.stop()
        assert bench is not None
        text = report(bench, args)
        print(text)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text)


if __name__ == "__main__":
    main()
