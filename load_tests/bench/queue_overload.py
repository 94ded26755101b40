"""The queue under overload, in real processes: one queue, two simulated engines, two gateways, loopback links.

    python -m load_tests.bench.bench_queue overload [--rounds N] [--window SECONDS]

Each engine: 16 slots, 20 ms per step; answers of 10 to 70 tokens, prompts of 100: 40 requests/s and 1,600 tokens/s
in all. Arms alternate inside a round. Every token of every completed answer is compared with the model's function.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CAPACITY_PER_S = 40.0
CAPACITY_TOKENS_PER_S = 1600.0
WARM_S = 2.5
DRAIN_S = 4.0
WAITED_S = 1.0
FIFO: dict[str, object] = {
    "bands": [{"name": "all", "rank": 0, "ageing_s": 1e6, "max_queued": 10**6, "max_queued_tokens": 10**9}],
    "ordering": "fifo", "pause_for_light_tenants": False, "max_queued": 10**6, "max_tenant_queued": 10**6,
}  # fmt: skip


class Row:
    """One request of a report. Times in seconds; -1: it did not happen."""

    def __init__(self, name: str, cells: list[Any]) -> None:
        self.name = name
        self.at_s = float(cells[1])
        self.ttft_s = float(cells[2])
        self.answer_s = float(cells[3])
        self.outcome = str(cells[4])
        self.right = bool(cells[5])
        self.preempted = bool(cells[6])
        self.tokens = int(cells[7])
        self.client_late_s = float(cells[8])
        self.queued_s = float(cells[9])


class Run:
    """Starts the processes of one arm, waits, and gathers."""

    def __init__(self, queue: dict[str, object], classes: list[dict[str, object]], seconds: float) -> None:
        self.queue, self.classes, self.seconds = queue, classes, seconds
        self.directory = ""
        self.processes: list[subprocess.Popen[str]] = []
        self.rows: list[Row] = []
        self.tokens: list[int] = []

    def start(self, role: str, settings: dict[str, object]) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "load_tests.bench.queue_rig", role, self.directory],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdin is not None
        process.stdin.write(json.dumps(settings))
        process.stdin.close()
        self.processes.append(process)
        return process

    def take(self, gateway: subprocess.Popen[str]) -> None:
        """Wait for a gateway's end and keep what it measured."""
        assert gateway.stdout is not None
        told = json.loads(gateway.stdout.read())
        self.rows += [Row(str(self.classes[cells[0]]["name"]), cells) for cells in told["rows"]]
        series = told["tokens_per_100ms"]
        self.tokens += [0] * (len(series) - len(self.tokens))
        for i, n in enumerate(series):
            self.tokens[i] += n

    def begin(self) -> float:
        """Tell the gateways when to start, in monotonic seconds."""
        start_s = time.monotonic() + 1.0
        draft = Path(self.directory, "draft")
        draft.write_text(str(start_s))
        draft.rename(Path(self.directory, "start"))
        return start_s

    def play(self, disturb: Callable[[Run, float], None] | None = None) -> Run:
        with tempfile.TemporaryDirectory() as self.directory:
            try:
                self.queue_process = self.start("queue", self.queue)
                self.wait_for("queue.json")
                halves = [{**c, "rate_per_s": float(c["rate_per_s"]) / 2} for c in self.classes]  # type: ignore[arg-type]
                gateways = [
                    self.start("gateway", {"name": n, "seconds": self.seconds, "classes": halves})
                    for n in ("g0", "g1")
                ]
                for name in ("e0", "e1"):
                    self.start("engine", {"name": name})
                for name in ("e0", "e1", "g0", "g1"):
                    self.wait_for(f"{name}.ready")
                start_s = self.begin()
                if disturb is not None:
                    disturb(self, start_s)
                for gateway in gateways:
                    self.take(gateway)
            finally:
                for process in self.processes:
                    process.kill()
                for process in self.processes:
                    process.wait()
        return self

    def wait_for(self, name: str) -> None:
        while not Path(self.directory, name).exists():
            time.sleep(0.02)

    def of(self, name: str, from_s: float = WARM_S) -> list[Row]:
        return [row for row in self.rows if row.name == name and row.at_s >= from_s]

    def ttft_ms(self, name: str, share: float, from_s: float = WARM_S) -> float:
        values = sorted(row.ttft_s for row in self.of(name, from_s) if row.ttft_s >= 0)
        return 1000 * values[min(len(values) - 1, int(share * len(values)))] if values else float("nan")

    def rate(self, from_s: float, until_s: float) -> float:
        """Tokens per second that clients got."""
        return sum(self.tokens[int(from_s * 10) : int(until_s * 10)]) / (until_s - from_s)

    def wrong(self) -> int:
        return sum(not row.right for row in self.rows)

    def outcomes(self, name: str) -> dict[str, int]:
        counts: dict[str, int] = {}
        for row in self.of(name, 0.0):
            counts[row.outcome] = counts.get(row.outcome, 0) + 1
        return counts


def load(
    name: str,
    band: str,
    share: float,
    until_s: float,
    *,
    from_s: float = 0.0,
    deadline_s: float = 30.0,
    tenant: str = "",
) -> dict[str, object]:
    """`share` of the capacity, Poisson."""
    return {
        "name": name, "band": band, "tenant": tenant or name, "rate_per_s": CAPACITY_PER_S * share, "from_s": from_s,
        "until_s": until_s, "deadline_s": deadline_s, "seed": name,
    }  # fmt: skip


def vip_arm(window_s: float, overload: float, queue: dict[str, object] | None = None) -> Run:
    """VIPs at 15% of capacity beside batch at `overload` times it. With a FIFO queue all are one band."""
    end_s = WARM_S + window_s
    fifo = queue is not None
    classes = [load("vip", "all" if fifo else "vip", 0.15, end_s)]
    if overload:
        classes.append(load("batch", "all" if fifo else "batch", overload, end_s, deadline_s=12.0))
    return Run(queue or {}, classes, end_s + (14.0 if overload and not fifo else DRAIN_S)).play()


def flood_arm(window_s: float, times: float) -> Run:
    """Four tenants at 8% each; a fifth at 8%, or 100 times that."""
    end_s = WARM_S + window_s
    classes = [
        load("warm", "standard", 1.5, 0.8, deadline_s=0.5)
    ]  # the depth is learnt before the measurement
    classes += [load(f"t{i}", "standard", 0.08, end_s) for i in range(4)]
    classes.append(load("x", "standard", 0.08 * times, end_s, from_s=WARM_S - 0.5, deadline_s=6.0))
    return Run({}, classes, end_s + DRAIN_S).play()


def recovery_arm(window_s: float) -> Run:
    """Standard traffic at 40%; a batch storm of 10x for the window, patience 3 s; then calm."""
    end_s = WARM_S + window_s
    classes = [
        load("standard", "standard", 0.4, end_s + 8.0), load("after", "batch", 0.1, end_s + 8.0, from_s=end_s),
        load("storm", "batch", 10.0, end_s, from_s=WARM_S, deadline_s=3.0),
    ]  # fmt: skip
    return Run({}, classes, end_s + 8.0 + DRAIN_S).play()


def kill_arm(window_s: float) -> tuple[Run, float, float]:
    """The queue is killed under 1.5x load and started again after 0.3 s. Returns the time of the kill too."""
    end_s = WARM_S + window_s
    killed: list[float] = []

    def disturb(run: Run, start_s: float) -> None:
        time.sleep(max(0.0, start_s + WARM_S + 1.0 - time.monotonic()))
        os.kill(run.queue_process.pid, signal.SIGKILL)
        killed.append(time.monotonic() - start_s)
        run.queue_process.wait()
        Path(run.directory, "queue.json").unlink()
        time.sleep(0.3)
        run.start("queue", run.queue)
        run.wait_for("queue.json")
        killed.append(time.monotonic() - start_s)

    classes = [load("standard", "standard", 1.5, end_s, deadline_s=60.0)]
    run = Run({}, classes, end_s + 40.0).play(disturb)
    return run, killed[0], killed[1]


def refusal_ms(rows: list[Row]) -> list[float]:
    """Milliseconds until the refusal, by size; what had waited first is given up, and not refused."""
    told = (row for row in rows if row.outcome in ("queue_full", "deadline_unreachable"))
    return sorted(1000 * row.answer_s for row in told if row.answer_s < WAITED_S)


def flood_round(window_s: float, note: Callable[[str, float], None]) -> None:
    """Both flood arms, one after the other. Twice the window: four tenants at 8% bring 13 requests a second."""
    calm, flood = flood_arm(window_s, 1.0), flood_arm(window_s, 100.0)
    p99 = [
        sorted(r.ttft_s for i in range(4) for r in run.of(f"t{i}") if r.ttft_s >= 0) for run in (calm, flood)
    ]
    others = [1000 * values[int(0.99 * len(values))] for values in p99]
    note("others beside a calm tenant, TTFT p99 (ms)", others[0])
    note("others beside the same tenant at 100x, TTFT p99 (ms)", others[1])
    note("… ratio, 100x", others[1] / others[0])


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--window", type=float, default=8.0)
    parser.add_argument("--only", choices=["flood", "vip"], help="some arms")
    options = parser.parse_args(arguments)
    window_s, end_s = options.window, WARM_S + options.window
    seen: dict[str, list[float]] = {}

    def note(key: str, value: float) -> None:
        seen.setdefault(key, []).append(value)
        print(f"{key}: {value:.2f}", file=sys.stderr, flush=True)

    notes: list[str] = []
    for number in range(options.rounds):
        print(f"round {number + 1}", file=sys.stderr, flush=True)
        if options.only == "flood":
            flood_round(2 * window_s, note)
            continue
        alone = vip_arm(window_s, 0.0)
        note("VIP alone, TTFT p99 (ms)", alone.ttft_ms("vip", 0.99))
        best = Run(FIFO, [load("all", "all", 1.0, end_s)], end_s + DRAIN_S).play()
        note("FIFO at 1.0x, tokens/s", best.rate(WARM_S, end_s))
        for times in (3.0, 10.0):
            run = vip_arm(window_s, times)
            note(f"VIP beside {times:g}x batch, TTFT p99 (ms)", run.ttft_ms("vip", 0.99))
            note(f"… ratio to alone, {times:g}x", run.ttft_ms("vip", 0.99) / alone.ttft_ms("vip", 0.99))
            note(f"… tokens/s, {times:g}x", run.rate(WARM_S, end_s))
            note(f"… share of FIFO's best, {times:g}x", run.rate(WARM_S, end_s) / best.rate(WARM_S, end_s))
            paused = [row for row in run.rows if row.preempted]
            finished = sum(row.outcome == "completed" and row.right for row in paused)
            note(f"… preempted requests, {times:g}x", len(paused))
            note(f"… of them complete and right (%), {times:g}x", 100 * finished / max(1, len(paused)))
            refused = refusal_ms(run.rows)
            if refused:
                note(f"… refusal p99 (ms), {times:g}x", refused[int(0.99 * len(refused))])
            note(f"… wrong answers, {times:g}x", run.wrong())
            notes.append(f"{times:g}x: vip {run.outcomes('vip')}, batch {run.outcomes('batch')}")
        if options.only == "vip":
            continue
        fifo = vip_arm(window_s, 3.0, FIFO)
        note("VIP in FIFO at 3x, TTFT p99 (ms)", fifo.ttft_ms("vip", 0.99))
        borrow = Run({}, [load("batch", "batch", 3.0, end_s)], end_s + 1.0).play()
        note(
            "batch only at 3x: share of all slots busy (%)",
            100 * borrow.rate(WARM_S, end_s) / CAPACITY_TOKENS_PER_S,
        )
        flood_round(2 * window_s, note)
        recovery = recovery_arm(window_s)
        late = [
            r.at_s + max(0.0, r.ttft_s) for r in recovery.of("after", end_s) if r.ttft_s > 0.1 or r.ttft_s < 0
        ]
        note("after a 10x storm: last slow batch answer (s after its end)", max(late, default=end_s) - end_s)
        note("standard during the storm, TTFT p99 (ms)", recovery.ttft_ms("standard", 0.99))
        run, killed_s, back_s = kill_arm(window_s)
        grants = sorted(r.at_s + r.ttft_s for r in run.rows if r.ttft_s >= 0)
        note("queue killed: down for (s)", back_s - killed_s)
        note("… first new stream after it is back (s)", next(t for t in grants if t > back_s) - back_s)
        note("… requests", len(run.rows))
        note("… lost or failed", sum(r.outcome != "completed" for r in run.rows))
        note("… wrong or doubled tokens", run.wrong())
    print("| what | median | range |\n| --- | --- | --- |")
    for key, values in seen.items():
        print(f"| {key} | {statistics.median(values):,.2f} | {min(values):,.2f} to {max(values):,.2f} |")
    print()
    for text in notes:
        print("-", text)


if __name__ == "__main__":
    main(sys.argv[1:])
