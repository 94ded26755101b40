"""One process of the queue's overload bench: the queue, a simulated engine, or a gateway's request side.

    python -m load_tests.bench.queue_rig queue|engine|gateway DIRECTORY   (settings: one JSON object on stdin)

The queue writes where it is into DIRECTORY/queue.json, as Ray's handle would say; everybody else reads it again at
each connection, so a queue that was killed is found where it came back. A gateway offers its load open loop (times
are drawn beforehand; waiting for the schedule is part of TTFT), runs the gateway's own flow (services/gateway) over
real links, compares every answer with what the model must say, and prints one JSON object at the end.

An engine is the simulated one, or vLLM (settings "vllm"), whose right answers the driver asks for beforehand and puts
into DIRECTORY/answers.json. A gateway that is told "direct" leaves the queue out: each request goes to the engine at
once, where vLLM's own scheduler orders it, by priority or by arrival.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
from itertools import count
from pathlib import Path

import uvloop

from services.config import ExpertsConfig, QueueConfig
from services.errors import MeshError
from services.experts.engine import Engine
from services.experts.factory import make_engine
from services.experts.groups import RankPlace
from services.experts.rank import Rank
from services.experts.sim_answers import expected_ids
from services.experts.sim_engine import SimEngine
from services.experts.sim_model import SimTiming
from services.gateway.flow import (
    AskLease,
    ChoiceFlow,
    CloseStream,
    DropTicket,
    Effect,
    Failed,
    Finished,
    OpenStream,
    ReturnLease,
)
from services.gateway.migrate import Loss, RetryBudget
from services.gateway.mux import EngineMux
from services.link.messages import Acquire, Grant, Refuse, Release, StreamFailed
from services.outcome import Reason
from services.queue.authority import QueueAuthority
from services.queue.client import QueueClient
from services.request import GenerateJob, SamplingParams, TokenFrame, pack_ids

NEXT = count(1).__next__
WORD_IDS = (100, 99_000)
DIRECT_EPOCH = 1 << 60
"""Above every epoch that a queue gives."""


class NoQueue:
    """Stands where the queue's client does and grants everything at once. Who gets no token by its deadline leaves,
    as it does when it waits in the queue."""

    def __init__(self, directory: Path) -> None:
        told = json.loads((directory / "e0.json").read_text())
        self._address, self._key = told["address"], bytes.fromhex(told["key"])

    def start(self) -> None:
        """Nothing to dial."""

    async def stop(self) -> None:
        """Nothing to close."""

    def acquire(self, acquire: Acquire, holder: Stream) -> None:
        asyncio.get_running_loop().call_later(acquire.remaining_s, holder.give_up)
        holder.on_grant(
            Grant(acquire.ticket, acquire.ticket, "e0", self._address, DIRECT_EPOCH, 0.0, self._key)
        )

    def release(self, release: Release) -> None:
        """Nobody counts."""

    def cancel(self, ticket: int) -> None:
        """Nobody waits."""

    def progress(self, ticket: int, num_tokens: int) -> None:
        """Nobody counts."""


class Stream:
    """One request: the gateway's flow against the live queue and engines, with its times."""

    def __init__(
        self, gateway: Gateway, kind: int, job: GenerateJob, template: Acquire, planned_s: float
    ) -> None:
        deadline_s = planned_s + template.remaining_s
        self.gateway, self.kind, self.planned_s = gateway, kind, planned_s
        self.job = job
        self.flow = ChoiceFlow(
            job, template, arrived_s=planned_s, deadline_s=deadline_s, next_id=NEXT, budget=gateway.budget
        )
        self.asked_s = self.first_s = self.end_s = 0.0
        self.began_s = time.monotonic()
        self.opened_s = 0.0
        self.outcome = ""
        self.apply(self.flow.start(time.monotonic()))

    def apply(self, effects: list[Effect]) -> None:
        gateway = self.gateway
        for effect in effects:
            match effect:
                case AskLease(acquire):
                    self.asked_s = time.monotonic()
                    gateway.queue.acquire(acquire, self)
                case OpenStream(grant, submit):
                    self.opened_s = self.opened_s or time.monotonic()
                    gateway.engines.open(grant, submit, self)
                case CloseStream(engine_id, stream_id):
                    gateway.engines.close(engine_id, stream_id)
                case ReturnLease(release):
                    gateway.queue.release(release)
                case DropTicket(ticket):
                    gateway.queue.cancel(ticket)
                case Finished():
                    self.end("completed")
                case Failed(error, _):
                    self.end(str(error.reason))

    def end(self, outcome: str) -> None:
        self.outcome, self.end_s = outcome, time.monotonic()
        self.gateway.open -= 1

    def on_grant(self, grant: Grant) -> None:
        self.apply(self.flow.on_grant(grant, time.monotonic()))

    def on_refuse(self, refuse: Refuse) -> None:
        self.apply(self.flow.on_refuse(refuse, time.monotonic()))

    def on_preempt(self, lease_id: int) -> None:
        self.gateway.preempted.add(self)
        self.apply(self.flow.on_preempt(lease_id, time.monotonic()))

    def on_frame(self, frame: TokenFrame, now_s: float) -> None:
        ids = self.flow.accept(frame)
        if ids is None:
            self.apply(self.flow.on_lost(now_s))
            return
        if not self.first_s:
            self.first_s = now_s
        self.gateway.tokens[int((now_s - self.gateway.start_s) * 10)] += len(ids)
        self.gateway.queue.progress(self.flow.ticket, len(ids))
        if frame.finish is not None:
            self.apply(self.flow.on_finish(frame.finish))

    def on_stream_failed(self, failed: StreamFailed) -> None:
        self.apply(self.flow.on_stream_failed(failed, time.monotonic()))

    def on_lost(self, loss: Loss) -> None:
        self.apply(self.flow.on_lost(time.monotonic(), loss))

    def give_up(self) -> None:
        """The deadline passed without a token."""
        if not self.first_s and not self.outcome:
            self.apply(self.flow.on_abort(MeshError(Reason.DEADLINE_EXCEEDED, "no token by the deadline")))


class Gateway:
    """The request side of one gateway process."""

    def __init__(self, directory: Path, plan: dict[str, object]) -> None:
        self.plan = plan
        self.start_s = 0.0
        self.directory = directory
        self.seconds = float(plan["seconds"])  # type: ignore[arg-type]
        self.classes: list[dict[str, object]] = plan["classes"]  # type: ignore[assignment]
        self.budget = RetryBudget(burst_tokens=1 << 40)
        name = str(plan["name"])
        self.engines = EngineMux(name)
        self.direct = str(plan.get("direct", ""))
        self.queue = (
            NoQueue(directory)
            if self.direct
            else QueueClient(resolver(directory), name, on_fence=self.engines.fence)
        )
        self.known: list[
            dict[str, str]
        ] = []  # prompts with right answers, hexadecimal; none: the simulated model's
        if (directory / "answers.json").exists():
            self.known = json.loads((directory / "answers.json").read_text())
        self.lengths_only = int(plan.get("prompt_tokens", 0))  # type: ignore[call-overload]
        """Tokens of a prompt whose right answer nobody knows; 0: they are known."""
        self.preempted: set[Stream] = set()
        self.streams: list[Stream] = []
        self.outputs: list[int] = plan.get("outputs", [10, 71])  # type: ignore[assignment]
        self.tokens = [0] * 100_000
        self.open = 0

    def schedule(self) -> list[tuple[float, int, bytes, int]]:
        """All arrivals: (time, class, prompt, output tokens), by time."""
        arrivals: list[tuple[float, int, bytes, int]] = []
        for kind, c in enumerate(self.classes):
            rng = random.Random(f"{c['seed']} {self.plan['name']}")
            when_s = self.start_s + float(c["from_s"])  # type: ignore[arg-type]
            until_s = self.start_s + float(c["until_s"])  # type: ignore[arg-type]
            while (when_s := when_s + rng.expovariate(float(c["rate_per_s"]))) < until_s:  # type: ignore[arg-type]
                arrivals.append((when_s, kind, self.prompt(rng), rng.randrange(*self.outputs)))
        arrivals.sort()
        return arrivals

    def prompt(self, rng: random.Random) -> bytes:
        if self.known:
            return bytes.fromhex(rng.choice(self.known)["prompt"])
        if self.lengths_only:
            return pack_ids(rng.randrange(*WORD_IDS) for _ in range(self.lengths_only))
        return rng.randbytes(4 * 100)

    async def run(self) -> None:
        self.queue.start()
        (self.directory / f"{self.plan['name']}.ready").touch()
        while not (self.directory / "start").exists():
            await asyncio.sleep(0.01)
        self.start_s = float((self.directory / "start").read_text())
        for when_s, kind, prompt, output in self.schedule():
            while (wait_s := when_s - time.monotonic()) > 0:
                await asyncio.sleep(wait_s)
            c = self.classes[kind]
            rank = "1" if self.direct == "priority" and c["band"] == "batch" else "0"
            if self.plan.get("urgent") and c["band"] == "vip":
                rank = "u"
            request_id = f"{rank}:{self.plan['name']}-{len(self.streams)}"
            # A salt of its own: no request finds another's prefix in the engine's cache, a resumed one finds its own.
            job = GenerateJob(
                request_id,
                prompt,
                SamplingParams(output, temperature=0.0, ignore_eos=True),
                cache_salt=f"{request_id}-{self.start_s}",
            )
            template = Acquire(
                0, request_id, "sim", str(c["tenant"]), str(c["band"]), len(prompt) // 4, output, 0.0,
                float(c["deadline_s"]),  # type: ignore[arg-type]
            )  # fmt: skip
            self.open += 1
            self.streams.append(Stream(self, kind, job, template, when_s))
        while self.open and time.monotonic() < self.start_s + self.seconds:
            await asyncio.sleep(0.02)
        await self.queue.stop()
        self.engines.stop()

    def report(self) -> dict[str, object]:
        """Everything measured; times are seconds since the start, TTFT from the planned arrival."""
        rows = []
        answers = {bytes.fromhex(one["prompt"]): bytes.fromhex(one["answer"]) for one in self.known}
        for s in self.streams:
            right = True
            if s.outcome == "completed":
                length = s.job.sampling.max_tokens
                known = answers.get(s.job.prompt_ids)
                if self.lengths_only:  # whatever was said is right, if it is as long as was asked for
                    known = s.flow.emitted.tobytes().ljust(4 * length, b"?")
                expected = known[: 4 * length] if known else expected_ids(s.job.prompt_ids, length)
                right = s.flow.emitted.tobytes() == expected
            rows.append((
                s.kind, round(s.planned_s - self.start_s, 5), round(s.first_s - s.planned_s, 6) if s.first_s else -1,
                round(s.end_s - s.asked_s, 6) if s.end_s else -1, s.outcome or "open", right, s in self.preempted,
                len(s.flow.emitted), round(s.began_s - s.planned_s, 6),
                round(s.opened_s - s.began_s, 6) if s.opened_s else -1,
            ))  # fmt: skip
        last = max((i for i, n in enumerate(self.tokens) if n), default=0)
        return {"rows": rows, "tokens_per_100ms": self.tokens[: last + 1]}


def resolver(directory: Path):
    async def resolve() -> tuple[str, bytes]:
        told = json.loads((directory / "queue.json").read_text())
        return told["address"], bytes.fromhex(told["key"])

    return resolve


async def run_queue(directory: Path, settings: dict[str, object]) -> None:
    authority = QueueAuthority(QueueConfig.model_validate(settings))
    address = await authority.start()
    draft = directory / f"queue.{os.getpid()}"
    draft.write_text(json.dumps({"address": address, "key": authority.key.hex()}))
    draft.rename(directory / "queue.json")
    with (directory / "depths").open("w") as depths:
        while True:
            await asyncio.sleep(0.5)
            print(sum(queue.capacity_slots for queue in authority.snapshot()), file=depths, flush=True)


async def run_engine(directory: Path, settings: dict[str, object]) -> None:
    name = str(settings["name"])
    engine: Engine = SimEngine(SimTiming(step_s=0.02, max_num_seqs=16, prefill_tokens_per_s=100_000.0), "sim")
    stuck_after_s = 1.0
    if "vllm" in settings:
        config = ExpertsConfig.model_validate(settings["vllm"])
        place = RankPlace(cores=tuple(settings["cores"]))  # type: ignore[arg-type]
        engine, stuck_after_s = vllm(config, place), config.stuck_after_s
    rank = Rank(engine, engine_id=name, resolve_queue=resolver(directory), stuck_after_s=stuck_after_s)
    await rank.start()
    (directory / f"{name}.json").write_text(json.dumps({"address": rank.address, "key": rank.key.hex()}))
    (directory / f"{name}.ready").touch()
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()
    await rank.stop()


def vllm(config: ExpertsConfig, place: RankPlace) -> Engine:
    """vLLM is imported after its process was prepared, as factory.py does it."""
    make_engine(config, place)
    from .vllm_priorities import PriorityEngine

    return PriorityEngine(config, place)


async def run_gateway(directory: Path, settings: dict[str, object]) -> None:
    gateway = Gateway(directory, settings)
    await gateway.run()
    sys.stdout.write(json.dumps(gateway.report()))


def main() -> None:
    role, directory = sys.argv[1], Path(sys.argv[2])
    settings = json.load(sys.stdin)
    if apart := settings.pop("away_from_core", None):  # a load client is no part of what is measured
        os.sched_setaffinity(0, os.sched_getaffinity(0) - {apart})
    run = {"queue": run_queue, "engine": run_engine, "gateway": run_gateway}[role]
    uvloop.run(run(directory, settings))


if __name__ == "__main__":
    main()
