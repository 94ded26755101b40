"""The queue before a real vLLM engine on one CPU core, beside vLLM's own schedulers on the same engine.

    python -m load_tests.bench.bench_queue vllm [--model tiny] [--window SECONDS] [--arms alone,mesh3,…]

One engine, started once; every arm is offered the same VIPs (15% of what the engine can do, measured first) beside
batch at 3 or 10 times it, open loop. Arms: `mesh` waits in the queue; `priority` sends everything to vLLM at once, VIPs
with the better priority (`--scheduling-policy priority`); `fifo` sends everything at once, alike (`fifo0.85`: with the
VIPs just what the engine can do); `calm` is `mesh` with a bound on how long steps may be beside VIPs (`max_slowdown` of
their band, `--slowdown`); `urgent` is `mesh` where a VIP's prompt gets a step of its own in the engine
(vllm_urgent.py). Who has no token by its deadline leaves, in every arm. Every token of a completed answer is compared
with what the engine said to the same prompt alone before.

`--model embedded` is the model of `make run` (prepare it first); `tiny` is a random Mixtral of four layers, for many
requests in little time; `sim` is the simulated engine, which knows no priorities, to try the bench itself. `--model gpu
--folder FOLDER` is a GPU's engine: 64 streams, prompts of 512 tokens, answers of 32 to 256 (queue_engines.py).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

from services.config import DEFAULT_BANDS
from services.request import GenerateJob, SamplingParams, pack_ids
from tests.cluster.engine_client import EngineClient

from .processes import cpu_s, tree
from .queue_engines import NAMES, Setting, setting
from .queue_overload import WAITED_S, Run, refusal_ms

VIP_SHARE = 0.15
PROMPTS = 16
ARMS = ("alone", "mesh3", "priority3", "fifo3", "mesh10", "priority10", "storm")
STORM_PATIENCE_S = 3.0
CALM_S = 8.0


class Stage:
    """The engine of all arms, what it answers, and how fast it is."""

    def __init__(self, folder: Path, setting: Setting, outputs: list[int]) -> None:
        self.folder, self.setting, self.outputs = folder, setting, outputs or list(setting.answers)
        self.host = Run({}, [], 0.0)
        self.host.directory = str(folder)
        settings: dict[str, object] = {"name": "e0"}
        self.apart: dict[str, object] = {}
        """For processes that are to stay off the engine's core, in every arm, when there is another."""
        config = setting.experts
        if config is not None:
            settings |= {"vllm": config.model_dump(mode="json"), "cores": []}
        if config is not None and config.device == "cpu":
            cores = os.sched_getaffinity(0)
            settings["cores"] = [max(cores)]
            self.apart = {"away_from_core": max(cores)} if len(cores) > 1 else {}
        self.engine = self.host.start("engine", settings)
        while not (folder / "e0.ready").exists():
            if self.engine.poll() is not None:
                raise RuntimeError("the engine ended before it was ready")
            time.sleep(0.1)
        self.capacity_per_s = asyncio.run(self._prepare())

    async def _prepare(self) -> float:
        """Right answers, and requests per second with every slot taken."""
        told = json.loads((self.folder / "e0.json").read_text())
        client = await EngineClient.open(told["address"], bytes.fromhex(told["key"]))
        rng, longest, known = random.Random(1), self.outputs[1] - 1, []
        for number in range(PROMPTS):
            prompt = pack_ids([rng.randrange(100, 4000) for _ in range(self.setting.prompt_tokens)])
            answer = await client.ask(self._job(f"right-{number}", prompt, longest))
            known.append({"prompt": prompt.hex(), "answer": pack_ids(answer.token_ids).hex()})
        if self.setting.exact:
            (self.folder / "answers.json").write_text(json.dumps(known))
        done, began_s = 0, time.monotonic()

        async def lane(number: int) -> None:
            nonlocal done
            lane_rng = random.Random(number)
            while time.monotonic() < began_s + 6.0:
                prompt = bytes.fromhex(lane_rng.choice(known)["prompt"])
                output = lane_rng.randrange(*self.outputs)
                await client.ask(self._job(f"full-{number}-{lane_rng.random()}", prompt, output))
                done += 1

        await asyncio.gather(*(lane(number) for number in range(self.setting.seqs)))
        rate = done / (time.monotonic() - began_s)
        client.close()
        return rate

    def _job(self, name: str, prompt: bytes, tokens: int) -> GenerateJob:
        return GenerateJob(
            name, prompt, SamplingParams(tokens, temperature=0.0, ignore_eos=True), cache_salt=name
        )

    def close(self) -> None:
        self.engine.send_signal(signal.SIGTERM)
        self.engine.wait(30)


class Arm(Run):
    """One arm on the stage; `direct` leaves the queue out."""

    def __init__(
        self,
        stage: Stage,
        direct: str,
        classes: list[dict[str, object]],
        seconds: float,
        slowdown: float = 0.0,
        urgent: bool = False,
    ) -> None:
        bands = [band.model_dump() for band in DEFAULT_BANDS]
        bands[0]["max_slowdown"] = slowdown
        super().__init__({"engine_silent_s": 5.0, "bands": bands}, classes, seconds)
        self.stage, self.direct, self.urgent = stage, direct, urgent
        self.depths: list[int] = []
        """What the queue would keep in the engine, every half second."""
        self.cpu_s: dict[str, float] = {}
        """CPU seconds of each part within the window: queue, gateway with its client, the engine's processes."""

    def play_on(self, warm_s: float, window_s: float) -> Arm:
        self.directory = str(self.stage.folder)
        for name in ("start", "g0.ready", "queue.json", "depths"):
            Path(self.directory, name).unlink(missing_ok=True)
        try:
            parts: dict[str, list[int]] = {}
            if not self.direct:
                parts["queue"] = [self.start("queue", self.queue | self.stage.apart).pid]
                self.wait_for("queue.json")
                time.sleep(2.5)  # the engine finds it within its backoff
            plan: dict[str, object] = {
                "name": "g0", "seconds": self.seconds, "classes": self.classes, "direct": self.direct,
                "urgent": self.urgent, "outputs": self.stage.outputs, **self.stage.apart,
                "prompt_tokens": 0 if self.stage.setting.exact else self.stage.setting.prompt_tokens,
            }  # fmt: skip
            gateway = self.start("gateway", plan)
            self.wait_for("g0.ready")
            host = self.stage.engine.pid
            parts |= {
                "gateway": [gateway.pid],
                "rank": [host],
                "engine": [p for p in tree(host) if p != host],
            }
            start_s = self.begin()
            time.sleep(max(0.0, start_s + warm_s - time.monotonic()))
            before = {part: cpu_s(pids) for part, pids in parts.items()}
            time.sleep(max(0.0, start_s + warm_s + window_s - time.monotonic()))
            self.cpu_s = {part: cpu_s(pids) - before[part] for part, pids in parts.items()}
            self.take(gateway)
            seen = Path(self.directory, "depths")
            self.depths = [int(line) for line in seen.read_text().split()] if "queue" in parts else []
        finally:
            for process in self.processes:
                process.kill()
                process.wait()
        self.warm_s = warm_s
        return self

    def vips(self) -> list[float]:
        """Milliseconds, by size."""
        return sorted(1000 * row.ttft_s for row in self.of("vip", self.warm_s) if row.ttft_s >= 0)

    def vip_parts(self) -> dict[str, list[float]]:
        """Where the VIPs' time to the first token went, in milliseconds, by size: until it was sent, until it
        had a lease, and from there."""
        rows = [row for row in self.of("vip", self.warm_s) if row.ttft_s >= 0]
        return {
            "client": sorted(1000 * row.client_late_s for row in rows),
            "queued": sorted(1000 * row.queued_s for row in rows),
            "engine": sorted(1000 * (row.ttft_s - row.client_late_s - row.queued_s) for row in rows),
        }


def at(values: list[float], share: float) -> float:
    return values[min(len(values) - 1, int(share * len(values)))] if values else float("nan")


def play(stage: Stage, name: str, window_s: float, warm_s: float, slowdown: float = 1.5) -> Arm:
    capacity, end_s = stage.capacity_per_s, warm_s + window_s
    ours = name.startswith(("mesh", "calm", "urgent"))
    direct = "" if ours or name.startswith(("alone", "storm")) else name.rstrip("0123456789.")
    overload = float(name.lstrip("abcdefghijklmnopqrstuvwxyz") or 0)

    def load(
        kind: str, band: str, share: float, until_s: float, deadline_s: float, from_s: float = 0.0
    ) -> dict[str, object]:
        return {
            "name": kind, "band": band, "tenant": kind, "rate_per_s": capacity * share, "from_s": from_s,
            "until_s": until_s, "deadline_s": deadline_s, "seed": kind,
        }  # fmt: skip

    if name == "storm":
        classes = [
            load("standard", "standard", 0.4, end_s + CALM_S, 30.0),
            load("storm", "batch", 10.0, end_s, STORM_PATIENCE_S, warm_s),
            load("after", "batch", 0.1, end_s + CALM_S, 30.0, end_s),
        ]
        return Arm(stage, direct, classes, end_s + CALM_S + 5.0).play_on(warm_s, window_s)
    classes = [load("vip", "vip", VIP_SHARE, end_s, 30.0)]
    if overload:
        classes.append(load("batch", "batch", overload, end_s, stage.setting.batch_deadline_s))
    drain_s = stage.setting.batch_deadline_s + 4.0 if ours else 3.0
    bound = slowdown if name.startswith("calm") else 0.0
    arm = Arm(stage, direct, classes, end_s + drain_s, bound, urgent=name.startswith("urgent"))
    return arm.play_on(warm_s, window_s)


def figures(arm: Arm, name: str, window_s: float) -> dict[str, float]:
    """What one arm showed."""
    end_s = arm.warm_s + window_s
    if name == "storm":
        slow = [r.at_s + max(0.0, r.ttft_s) for r in arm.of("after", end_s) if r.ttft_s < 0 or r.ttft_s > 1.0]
        return {"recovery_s": max(slow, default=end_s) - end_s, "wrong": arm.wrong()}
    patience_s = arm.stage.setting.batch_deadline_s
    vips, paused, refused = arm.vips(), [row for row in arm.rows if row.preempted], refusal_ms(arm.rows)
    whole = sum(row.outcome == "completed" and row.right for row in paused)
    told = {
        "vips": len(vips), "p50": at(vips, 0.5), "p99": at(vips, 0.99), "longest": vips[-1] if vips else float("nan"),
        "late": sum(row.ttft_s < 0 for row in arm.of("vip", arm.warm_s)), "tokens_per_s": arm.rate(arm.warm_s, end_s),
        "wrong": arm.wrong(), "completed": sum(row.outcome == "completed" for row in arm.rows),
        "preempted": len(paused), "preempted_whole": whole,
        "overdue": sum(r.outcome == "completed" and r.answer_s > patience_s for r in arm.of("batch", 0.0)),
        "preempted_late": sum(row.outcome.startswith("deadline") for row in paused),
    }  # fmt: skip
    for part, ms in arm.vip_parts().items():
        told |= {f"{part}_p50": at(ms, 0.5), f"{part}_p99": at(ms, 0.99)}
    told |= {f"{part}_cpu_s": seconds for part, seconds in arm.cpu_s.items()}
    if depths := arm.depths:
        told |= {"depth": statistics.median(depths), "depth_least": min(depths)}
    if not refused:
        return told
    waited = sum(r.outcome.startswith("deadline") and r.answer_s >= WAITED_S for r in arm.rows)
    return told | {
        "refused": len(refused), "refusal_p50_ms": at(refused, 0.5), "refusal_p99_ms": at(refused, 0.99),
        "given_up": waited,
    }  # fmt: skip


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=NAMES, default="embedded")
    parser.add_argument("--folder", default="", help="the model of --model gpu")
    parser.add_argument("--graph-tokens", type=int, default=0, help="longest step with a CUDA graph, of gpu")
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--window", type=float, default=20.0)
    parser.add_argument("--warm", type=float, default=5.0)
    parser.add_argument("--slowdown", type=float, default=1.5, help="of the arms named calm")
    parser.add_argument("--answers", type=int, nargs=2, help="tokens of an answer: at least, less than")
    told = parser.parse_args(arguments)
    seen: dict[str, list[dict[str, float]]] = {}
    vips: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(
            Path(folder), setting(told.model, Path(folder), told.folder, told.graph_tokens), told.answers
        )
        try:
            print(f"capacity {stage.capacity_per_s:.2f} requests/s", file=sys.stderr, flush=True)
            for _ in range(told.rounds):
                for name in told.arms.split(","):
                    arm = play(stage, name, told.window, told.warm, told.slowdown)
                    seen.setdefault(name, []).append(figures(arm, name, told.window))
                    vips.setdefault(name, []).extend(arm.vips())
                    print(name, json.dumps(seen[name][-1]), file=sys.stderr, flush=True)
        finally:
            stage.close()
    print(
        f"model {told.model}, capacity {stage.capacity_per_s:.2f} requests/s, medians of {told.rounds} rounds\n"
    )
    keys = list(dict.fromkeys(key for rounds in seen.values() for one in rounds for key in one))
    print("| arm | " + " | ".join(keys) + " |\n|" + " --- |" * (len(keys) + 1))
    for name, rounds in seen.items():
        columns = [[one[key] for one in rounds if key in one] for key in keys]
        print(f"| {name} | " + " | ".join(f"{statistics.median(c):.1f}" if c else "" for c in columns) + " |")
    print("\n| arm | VIPs of all rounds | TTFT p50 / p99 / slowest ms |\n| --- | --- | --- |")
    for name, ms in vips.items():
        ms.sort()
        print(f"| {name} | {len(ms)} | {at(ms, 0.5):.1f} / {at(ms, 0.99):.1f} / {at(ms, 1.0):.1f} |")
