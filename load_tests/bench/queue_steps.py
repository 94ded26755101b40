"""What `max_slowdown` buys and costs on one engine, on a virtual clock: the arms of queue_vllm.py without its noise.

    python -m load_tests.bench.bench_queue steps [--step-ms 15.3 --stream-ms 1.4 --prefill-per-s 6450 --slots 8]

The queue's own core before the simulated engine, whose steps take step + stream · batch + prompts / prefill, as vLLM
takes them; the defaults are the tiny model on one core, as measured. Messages take a millisecond. Prints what VIPs wait
alone, beside overload, and beside overload with bounds on the steps. The same arguments give the same figures.
`--stalls 0.02`: steps take 10% less to 25% more, and one in fifty 0.1 to 0.8 s longer, as on a host with other work.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush

from services.config import DEFAULT_BANDS, QueueConfig
from services.experts.engine import StreamError
from services.experts.sim_model import SimModel, SimTiming
from services.link.messages import Acquire, EngineLoad, EngineUp, Grant, Preempt, Progress, Refuse, Release
from services.queue.events import Event, FromEngine, FromGateway, Tick, ToGateway
from services.queue.scheduler import Scheduler
from services.request import GenerateJob, SamplingParams, TokenFrame, pack_ids

WIRE_S = 0.001
PROMPT_TOKENS = 32
OUTPUTS = 4, 17
MEAN_OUTPUT = 10.0
VIP_SHARE = 0.15
WARM_S = 10.0
PATIENCE_S = {"vip": 30.0, "batch": 8.0}
JITTER = -0.1, 0.25
STALL_S = 0.1, 0.8


@dataclass
class Ask:
    """One request. Times are virtual seconds."""

    number: int
    band: str
    at_s: float
    output: int
    ticket: int = 0
    lease: int = 0
    got: int = 0
    got_at_grant: int = 0
    told: int = 0
    first_s: float = -1.0
    outcome: str = ""
    ended_s: float = 0.0
    paused: int = 0


class Steps:
    """One run."""

    def __init__(
        self,
        timing: SimTiming,
        max_slowdown: float,
        rates: dict[str, float],
        seconds: float,
        stalls: float = 0.0,
    ) -> None:
        vip = DEFAULT_BANDS[0].model_copy(update={"max_slowdown": max_slowdown})
        self.queue = Scheduler(QueueConfig(bands=(vip, *DEFAULT_BANDS[1:])))
        self.engine = SimModel(timing)
        self._stalls, self._noise = stalls, random.Random(2)
        self.now_s, self.tokens = 0.0, 0
        self.asks: list[Ask] = []
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = self._tickets = 0
        self._open: dict[int, Ask] = {}
        self._stepping = False
        slots = timing.max_num_seqs
        self._decide(
            FromEngine(EngineUp("e0", "x:1", "m", slots, timing.kv_tokens, 16, timing.max_model_len))
        )
        self._after(0.05, self._tick)
        self._after(0.1, self._report)
        rng = random.Random(1)
        for band, rate in rates.items():
            at_s = 0.0
            while rate and (at_s := at_s + rng.expovariate(rate)) < seconds:
                self.asks.append(ask := Ask(len(self.asks), band, at_s, rng.randrange(*OUTPUTS)))
                self._after(at_s, lambda ask=ask: self._ask(ask))

    def run_until(self, when_s: float) -> None:
        while self._heap and self._heap[0][0] <= when_s:
            self.now_s, _, action = heappop(self._heap)
            action()
        self.now_s = when_s

    def _after(self, delay_s: float, action: Callable[[], None]) -> None:
        self._order += 1
        heappush(self._heap, (self.now_s + delay_s, self._order, action))

    # the gateway -----------------------------------------------------------------------------------------

    def _ask(self, ask: Ask) -> None:
        self._tickets += 1
        ask.ticket, ask.lease = self._tickets, 0
        self._open[ask.ticket] = ask
        left_s = ask.at_s + PATIENCE_S[ask.band] - self.now_s
        message = Acquire(
            ask.ticket, f"r{ask.number}", "m", ask.band, ask.band, PROMPT_TOKENS, ask.output, self.now_s - ask.at_s,
            left_s, emitted_tokens=ask.got, registered=ask.paused > 0,
        )  # fmt: skip
        self._after(WIRE_S, lambda: self._decide(FromGateway("g", message)))

    def _hear(self, message: Grant | Refuse | Preempt) -> None:
        ask = self._open.get(message.ticket)
        if ask is None:
            return
        if isinstance(message, Grant):
            ask.lease, ask.got_at_grant, ask.told = message.lease_id, ask.got, ask.got
            self._after(WIRE_S, lambda: self._submit(ask, message.ticket))
        elif isinstance(message, Refuse):
            ask.outcome = str(message.reason)
            del self._open[message.ticket]
        else:
            self.engine.abort(message.ticket)
            self._return(ask, "preempted")
            ask.paused += 1
            self._ask(ask)

    def _return(self, ask: Ask, outcome: str) -> None:
        del self._open[ask.ticket]
        told = Release(ask.ticket, ask.lease, PROMPT_TOKENS, ask.got - ask.got_at_grant, outcome)
        self._after(WIRE_S, lambda: self._decide(FromGateway("g", told)))

    # the engine ------------------------------------------------------------------------------------------

    def _submit(self, ask: Ask, ticket: int) -> None:
        if self._open.get(ticket) is not ask:
            return

        def sink(item: TokenFrame | StreamError) -> None:
            if self._open.get(ticket) is not ask or isinstance(item, StreamError):
                return
            ask.got += len(item.token_ids)
            self.tokens += len(item.token_ids)
            if ask.first_s < 0:
                ask.first_s = self.now_s
            if item.finish is not None:
                ask.outcome, ask.ended_s = "completed", self.now_s
                self._return(ask, "completed")

        params = SamplingParams(ask.output, temperature=0.0, ignore_eos=True)
        prompt, emitted = pack_ids([ask.number + 1] * PROMPT_TOKENS), pack_ids([1] * ask.got)
        self.engine.submit(ticket, GenerateJob(f"r{ask.number}", prompt, params, emitted_ids=emitted), sink)
        self._step()

    def _step(self) -> None:
        if self._stepping or (step_s := self.engine.begin_step()) is None:
            return
        self._stepping = True
        if self._stalls:
            step_s *= 1.0 + self._noise.uniform(*JITTER)
            step_s += self._noise.uniform(*STALL_S) if self._noise.random() < self._stalls else 0.0
        self._after(step_s, self._end_step)

    def _end_step(self) -> None:
        self._stepping = False
        self.engine.end_step()
        self._step()

    # the queue -------------------------------------------------------------------------------------------

    def _decide(self, event: Event) -> None:
        for effect in self.queue.decide(event, self.now_s):
            if isinstance(effect, ToGateway):
                self._after(WIRE_S, lambda message=effect.message: self._hear(message))

    def _tick(self) -> None:
        self._decide(Tick())
        self._after(0.05, self._tick)

    def _report(self) -> None:
        load = self.engine.sample_load()
        told = EngineLoad(
            "e0", load.running, load.waiting, load.kv_free_tokens, load.step_s, load.tokens_total
        )
        self._decide(FromEngine(told))
        held = [ask for ask in self._open.values() if ask.lease]
        if held:
            counts = tuple(ask.got - ask.told for ask in held)
            self._decide(FromGateway("g", Progress(tuple(ask.ticket for ask in held), counts)))
        for ask in held:
            ask.told = ask.got
        self._after(0.1, self._report)


@dataclass(frozen=True)
class Figures:
    """Of VIPs that came after WARM_S, in milliseconds; tokens per second in all; paused requests, those of them that
    completed, and those that did so in time."""

    p50: float
    p99: float
    tokens_per_s: float
    paused: int
    whole: int
    in_time: int


def play(
    timing: SimTiming, overload: float, max_slowdown: float, seconds: float, stalls: float = 0.0
) -> Figures:
    """VIPs at VIP_SHARE of the full engine's capacity, batch at `overload` times it."""
    slots = timing.max_num_seqs
    step_s = timing.step_s + timing.step_per_seq_s * slots
    starts = slots / MEAN_OUTPUT  # per step
    per_s = starts / (step_s + starts * PROMPT_TOKENS / timing.prefill_tokens_per_s)
    rates = {"vip": VIP_SHARE * per_s, "batch": overload * per_s}
    run = Steps(timing, max_slowdown, rates, seconds, stalls)
    run.run_until(WARM_S)
    before = run.tokens
    run.run_until(seconds)
    rate = (run.tokens - before) / (seconds - WARM_S)
    run.run_until(seconds + 40.0)
    vips = [a for a in run.asks if a.band == "vip" and a.at_s >= WARM_S and a.first_s >= 0]
    ms = sorted(1000 * (ask.first_s - ask.at_s) for ask in vips)
    paused = [ask for ask in run.asks if ask.paused]
    whole = [ask for ask in paused if ask.outcome == "completed" and ask.got == ask.output]
    in_time = sum(ask.ended_s <= ask.at_s + PATIENCE_S[ask.band] for ask in whole)
    return Figures(ms[len(ms) // 2], ms[int(0.99 * len(ms))], rate, len(paused), len(whole), in_time)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--step-ms", type=float, default=15.3)
    parser.add_argument("--stream-ms", type=float, default=1.4)
    parser.add_argument("--prefill-per-s", type=float, default=6450.0)
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--overload", type=float, default=3.0)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--stalls", type=float, default=0.0)
    parser.add_argument("--bounds", type=float, nargs="+", default=[0.0, 1.8, 1.6, 1.5, 1.4, 1.3])
    told = parser.parse_args(arguments)
    timing = SimTiming(
        step_s=told.step_ms / 1000, step_per_seq_s=told.stream_ms / 1000, prefill_tokens_per_s=told.prefill_per_s,
        max_num_seqs=told.slots, max_batched_tokens=512, prefix_cache=False,
    )  # fmt: skip
    alone = play(timing, 0.0, 0.0, told.seconds, told.stalls)
    full = play(timing, told.overload, 0.0, told.seconds, told.stalls)
    print("| max_slowdown | VIP TTFT p50 / p99 ms | p99 to alone | tokens/s | paused, whole, in time |")
    print("| --- | --- | --- | --- | --- |")
    print(f"| VIPs alone | {alone.p50:.1f} / {alone.p99:.1f} | | | |")
    for bound in told.bounds:
        seen = full if not bound else play(timing, told.overload, bound, told.seconds, told.stalls)
        share = 100 * seen.tokens_per_s / full.tokens_per_s
        print(
            f"| {bound or 'none'} | {seen.p50:.1f} / {seen.p99:.1f} | {seen.p99 / alone.p99:.2f} | "
            f"{seen.tokens_per_s:.0f} ({share:.0f}%) | {seen.paused}, {seen.whole}, {seen.in_time} |"
        )
