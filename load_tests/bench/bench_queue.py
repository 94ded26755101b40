"""What a decision of the queue costs with 100,000 requests waiting, and what it does under overload.

    python -m load_tests.bench.bench_queue [--ordering P]  decisions: latency, rate, memory
    python -m load_tests.bench.bench_queue overload        real processes, simulated engines (queue_overload.py)
    python -m load_tests.bench.bench_queue vllm            a real engine, vLLM's schedulers beside us (queue_vllm.py)
    python -m load_tests.bench.bench_queue steps           short steps for VIPs, virtual clock (queue_steps.py)
    python -m load_tests.bench.bench_queue killed          the queue's process killed in Ray Serve (queue_killed.py)

Decisions are timed one by one, wall and CPU time of the thread (other work on the host shows in the first only).
One process, one core, no I/O: what a message costs on the wire is bench_link's business.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import sys
import time

from services.config import BandConfig, QueueConfig
from services.link.messages import Acquire, EngineLoad, EngineUp, Grant, Preempt, Progress, Release
from services.queue.events import Event, FromEngine, FromGateway, Tick, ToGateway
from services.queue.scheduler import Scheduler

QUEUED = 100_000
TENANTS = 1_000
ENGINES = 8
SLOTS = 64
ROUNDS = 20_000
SERVICE_S = 1.5 / (ENGINES * SLOTS)
"""Between two returns of leases: a stream holds its slot for 1.5 s."""
UNBOUNDED = 1 << 40


def rss_bytes() -> int:
    """Resident memory of this process."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def big_config(ordering: str) -> QueueConfig:
    """The default bands with room for 100,000."""
    bands = tuple(
        BandConfig(
            name=name, rank=rank, reserved_share=0.25 if rank == 0 else 0.0, preemptible=rank > 0,
            pauses_lower=rank == 0, max_queued=UNBOUNDED, max_queued_tokens=UNBOUNDED, ageing_s=600.0,
        )
        for rank, name in enumerate(("vip", "standard", "batch"))
    )  # fmt: skip
    return QueueConfig(
        bands=bands, max_queued=UNBOUNDED, max_queued_tokens=UNBOUNDED, max_tenant_queued=UNBOUNDED,
        max_tenant_queued_tokens=UNBOUNDED, ordering=ordering,
    )  # fmt: skip


class DecisionBench:
    """A queue, four gateways and eight engines as bare events; every decision is timed."""

    def __init__(self, ordering: str = "token_fairness") -> None:
        self.rng = random.Random(1)
        self.queue = Scheduler(big_config(ordering))
        self.now_s = 1000.0
        self.wall: dict[str, list[int]] = {}
        self.cpu: dict[str, list[int]] = {}
        self.held: list[tuple[str, Grant]] = []
        self.ticket = 0
        self.totals = 0
        for i in range(ENGINES):
            self.decide("engine_up", FromEngine(EngineUp(f"e{i}", "h:1", "m", SLOTS, 1_000_000, 16, 100_000)))

    def decide(self, kind: str, event: Event) -> None:
        cpu, wall = time.thread_time_ns(), time.perf_counter_ns()
        effects = self.queue.decide(event, self.now_s)
        wall_ns, cpu_ns = time.perf_counter_ns() - wall, time.thread_time_ns() - cpu
        self.wall.setdefault(kind, []).append(wall_ns)
        self.cpu.setdefault(kind, []).append(cpu_ns)
        for effect in effects:
            if isinstance(effect, ToGateway) and isinstance(effect.message, Grant):
                self.held.append((effect.gateway, effect.message))
            elif isinstance(effect, ToGateway) and isinstance(effect.message, Preempt):
                self.preempted(effect.gateway, effect.message)

    def preempted(self, gateway: str, message: Preempt) -> None:
        self.held = [h for h in self.held if h[1].lease_id != message.lease_id]
        self.decide(
            "release", FromGateway(gateway, Release(message.ticket, message.lease_id, 100, 5, "preempted"))
        )

    def acquire(self) -> None:
        self.ticket += 1
        rng = self.rng
        group = rng.randrange(200) * 100
        band = rng.choices(("vip", "standard", "batch"), (1, 5, 14))[0]
        message = Acquire(
            self.ticket, f"req-{self.ticket}", "m", f"tenant-{rng.randrange(TENANTS)}", band, rng.randrange(50, 500),
            256, 0.001, 3600.0, prefix=tuple(range(group, group + 8)),
        )  # fmt: skip
        self.decide("acquire", FromGateway(f"g{self.ticket % 4}", message))

    def release(self) -> None:
        index = self.rng.randrange(len(self.held))
        self.held[index], self.held[-1] = self.held[-1], self.held[index]
        gateway, grant = self.held.pop()
        self.decide(
            "release and grant",
            FromGateway(gateway, Release(grant.ticket, grant.lease_id, 100, 60, "completed")),
        )

    def housekeeping(self) -> None:
        """What 100 ms bring: load reports, progress of all gateways, two ticks."""
        self.totals += 1
        for engine in list(self.queue.state.fleet.engines.values()):
            load = EngineLoad(engine.engine_id, len(engine.leases), 0, 500_000, 0.02, self.totals)
            self.decide("engine load", FromEngine(load))
        for gateway in range(4):
            tickets = tuple(grant.ticket for name, grant in self.held if name == f"g{gateway}")
            self.decide(
                "progress of 128–160 streams",
                FromGateway(f"g{gateway}", Progress(tickets, (5,) * len(tickets))),
            )
        self.decide("tick", Tick())
        self.decide("tick", Tick())


def line(kind: str, wall: list[int], cpu: list[int]) -> str:
    def at(values: list[int], share: float) -> float:
        return sorted(values)[min(len(values) - 1, int(share * len(values)))] / 1000

    rate = len(cpu) / (sum(cpu) / 1e9)
    return (
        f"| {kind} | {len(wall):,} | {at(wall, 0.5):.1f} / {at(wall, 0.99):.1f} | {at(cpu, 0.5):.1f} / "
        f"{at(cpu, 0.99):.1f} | {max(wall) / 1000:,.0f} | {rate:,.0f} |"
    )


def decisions(ordering: str) -> None:
    """Fill to 100,000, then serve at that depth, and print the table."""
    gc.collect()
    gc.freeze()
    before = rss_bytes()
    bench = DecisionBench(ordering)
    while bench.queue.state.bands.waiting < QUEUED:
        bench.acquire()
        bench.now_s += 1e-5
        if bench.ticket % 1000 == 0:
            bench.housekeeping()
    per_request = (rss_bytes() - before) / QUEUED
    print("| decision | n | wall p50 / p99 µs | CPU p50 / p99 µs | wall max µs | per CPU second |")
    print("| --- | --- | --- | --- | --- | --- |")
    print(line("acquire, while filling to 100,000", bench.wall.pop("acquire"), bench.cpu.pop("acquire")))
    bench.wall.clear()
    bench.cpu.clear()
    for i in range(ROUNDS):
        bench.release()
        bench.acquire()
        bench.now_s += SERVICE_S
        if i % round(0.1 / SERVICE_S) == 0:
            bench.housekeeping()
    for kind in sorted(bench.wall, key=lambda k: -len(bench.wall[k])):
        print(line(kind + ", 100,000 waiting", bench.wall[kind], bench.cpu[kind]))
    singles = [k for k in bench.wall if not k.startswith(("progress", "tick"))]
    wall = [v for k in singles for v in bench.wall[k]]
    cpu = [v for k in singles for v in bench.cpu[k]]
    print(line("all of these but progress and ticks", wall, cpu))
    print(f"\nmemory: {per_request:,.0f} bytes per waiting request (RSS), grants held {len(bench.held)}")
    bench.queue.state.check_integrity()


def main() -> None:
    if sys.argv[1:2] == ["overload"]:
        from load_tests.bench import queue_overload

        queue_overload.main(sys.argv[2:])
    elif sys.argv[1:2] == ["vllm"]:
        from load_tests.bench import queue_vllm

        queue_vllm.main(sys.argv[2:])
    elif sys.argv[1:2] == ["steps"]:
        from load_tests.bench import queue_steps

        queue_steps.main(sys.argv[2:])
    elif sys.argv[1:2] == ["killed"]:
        from load_tests.bench import queue_killed

        queue_killed.main(sys.argv[2:])
    else:
        parser = argparse.ArgumentParser()
        parser.add_argument("--ordering", default="token_fairness")
        decisions(parser.parse_args().ordering)


if __name__ == "__main__":
    main()
