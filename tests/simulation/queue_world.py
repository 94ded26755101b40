"""A small world around the queue's core on a virtual clock: gateways, engines, a wire with delay. No I/O.

Rules: everything that happens is an event in one heap, ordered by time and then by insertion, so a run is a function
of its script. Engines are reduced to timing: a stream prefills, then one token per step; more streams than slots wait
inside. The queue may crash (`crash_queue`): its state is lost and gateways and engines register again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush

from services.config import QueueConfig
from services.link.messages import (
    Acquire,
    CancelTicket,
    EngineLoad,
    EngineUp,
    Fence,
    Grant,
    Holding,
    Progress,
    Refuse,
    Release,
)
from services.queue.events import (
    Effect,
    EngineUnlinked,
    Event,
    FromEngine,
    FromGateway,
    GatewayLost,
    Tick,
    ToAllGateways,
    ToGateway,
)
from services.queue.scheduler import Scheduler

WIRE_S = 0.0005


@dataclass
class Job:
    """One request and what became of it. Times are virtual seconds."""

    name: str
    tenant: str
    band: str
    prompt_tokens: int
    output_tokens: int
    arrived_s: float
    deadline_s: float
    gateway: str
    weight: float = 1.0
    ticket: int = 0
    grant: Grant | None = None
    emitted: int = 0
    emitted_at_grant: int = 0
    reported: int = 0
    first_token_s: float | None = None
    granted_s: float | None = None
    finished_s: float | None = None
    outcome: str = ""
    outcomes: int = 0
    num_preempted: int = 0
    refuse: Refuse | None = None
    avoid: tuple[str, ...] = ()
    answered_s: float = 0.0

    @property
    def ttft_s(self) -> float:
        assert self.first_token_s is not None
        return self.first_token_s - self.arrived_s


@dataclass
class SimEngineHost:
    """Slots and speed; `streams` run, `inside` wait for a slot. A step takes `stream_s` longer per stream."""

    name: str
    slots: int
    step_s: float
    prefill_tokens_per_s: float
    pool: str = "default"
    kv_tokens: int = 1_000_000
    epoch: int = 0
    alive: bool = True
    streams: dict[str, int] = field(default_factory=dict)
    inside: deque[Job] = field(default_factory=deque)
    tokens_total: int = 0
    busy_s: float = 0.0
    stream_s: float = 0.0

    @property
    def pace_s(self) -> float:
        """A step's time with the streams that run now."""
        return self.step_s + self.stream_s * len(self.streams)


class World:
    """See the module."""

    def __init__(
        self, config: QueueConfig, gateways: int, engines: list[SimEngineHost], check: bool = False
    ) -> None:
        self.config, self.check = config, check
        self.now_s = 1000.0
        self.jobs: list[Job] = []
        self.by_ticket: dict[tuple[str, int], Job] = {}
        self.engines = {engine.name: engine for engine in engines}
        self.gateways = [f"g{i}" for i in range(gateways)]
        self.dead_gateways: set[str] = set()
        self.order: list[str] = []
        self.log: list[tuple[float, Event]] = []
        self.queue: Scheduler | None = None
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._seq = 0
        self._last_ticket = 0
        self._incarnation = 0
        self.start_queue()
        self._every(0.05, self._tick)
        self._every(0.1, self._report)

    # time ------------------------------------------------------------------------------------------------

    def at(self, when_s: float, action: Callable[[], None]) -> None:
        self._seq += 1
        heappush(self._heap, (when_s, self._seq, action))

    def after(self, delay_s: float, action: Callable[[], None]) -> None:
        self.at(self.now_s + delay_s, action)

    def _every(self, period_s: float, action: Callable[[], None]) -> None:
        def again() -> None:
            action()
            self.after(period_s, again)

        self.after(period_s, again)

    def run_until(self, when_s: float) -> None:
        while self._heap and self._heap[0][0] <= when_s:
            self.now_s, _, action = heappop(self._heap)
            action()
        self.now_s = when_s

    # the queue -------------------------------------------------------------------------------------------

    def start_queue(self) -> None:
        self._incarnation += 1
        grace_s = self.config.restart_grace_s if self._incarnation > 1 else 0.0
        self.queue = Scheduler(self.config, incarnation=self._incarnation, grace_s=grace_s)
        for engine in self.engines.values():
            if engine.alive:
                self._engine_up(engine)
        for job in list(self.by_ticket.values()):
            if job.grant is not None:
                told = Holding(
                    self._acquire(job, True),
                    job.grant.lease_id,
                    job.grant.engine_id,
                    job.grant.epoch,
                    job.reported,
                )
                self.tell(FromGateway(job.gateway, told))
        for job in list(self.by_ticket.values()):
            if job.grant is None:
                self.tell(FromGateway(job.gateway, self._acquire(job, True)))

    def crash_queue(self, down_s: float) -> None:
        self.queue = None
        self.after(down_s, self.start_queue)

    def tell(self, event: Event) -> None:
        """An event reaches the queue after the wire's delay, or is lost with it."""
        target = self.queue

        def arrive() -> None:
            if self.queue is target and target is not None:
                self.log.append((self.now_s, event))
                self._run(target.decide(event, self.now_s))
                if self.check:
                    target.state.check_integrity()

        self.after(WIRE_S, arrive)

    def _run(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, ToGateway) and effect.gateway not in self.dead_gateways:
                self.after(WIRE_S, lambda e=effect: self._hear(e))
            elif isinstance(effect, ToAllGateways):
                self.after(WIRE_S, lambda e=effect: self._fenced(e.message))

    def _tick(self) -> None:
        if self.queue is not None:
            self.tell(Tick())

    # gateways --------------------------------------------------------------------------------------------

    def submit(
        self, at_s: float, gateway: int, tenant: str, band: str, prompt: int, output: int,
        deadline_s: float = 600.0, weight: float = 1.0,
    ) -> Job:  # fmt: skip
        job = Job(
            f"r{len(self.jobs)}",
            tenant,
            band,
            prompt,
            output,
            at_s,
            at_s + deadline_s,
            self.gateways[gateway],
            weight,
        )
        self.jobs.append(job)
        self.at(at_s, lambda: self._ask(job))
        return job

    def _acquire(self, job: Job, registered: bool) -> Acquire:
        return Acquire(
            job.ticket, job.name, "m", job.tenant, job.band, job.prompt_tokens, job.output_tokens,
            self.now_s - job.arrived_s, job.deadline_s - self.now_s, job.weight, avoid=job.avoid,
            emitted_tokens=job.emitted, registered=registered,
        )  # fmt: skip

    def _ask(self, job: Job) -> None:
        self._last_ticket += 1
        job.ticket, job.grant = self._last_ticket, None
        self.by_ticket[job.gateway, job.ticket] = job
        self.tell(FromGateway(job.gateway, self._acquire(job, job.num_preempted > 0)))

    def cancel(self, job: Job) -> None:
        if self.by_ticket.pop((job.gateway, job.ticket), None) is not None:
            self._stop(job)
            self._end(job, "cancelled")
            self.tell(FromGateway(job.gateway, CancelTicket(job.ticket)))

    def kill_gateway(self, name: str) -> None:
        self.dead_gateways.add(name)
        for key, job in list(self.by_ticket.items()):
            if key[0] == name:
                del self.by_ticket[key]
                self._stop(job)
                self._end(job, "gateway died")
        self.tell(GatewayLost(name))

    def _end(self, job: Job, outcome: str) -> None:
        job.outcome = outcome
        job.outcomes += 1
        job.finished_s = self.now_s

    def _hear(self, effect: ToGateway) -> None:
        message = effect.message
        job = self.by_ticket.get((effect.gateway, message.ticket))
        if isinstance(message, Grant):
            if job is None or (job.grant is not None and job.grant.lease_id != message.lease_id):
                self.tell(
                    FromGateway(effect.gateway, Release(message.ticket, message.lease_id, 0, 0, "cancelled"))
                )
            elif job.grant is None:
                job.grant, job.granted_s = message, self.now_s
                job.emitted_at_grant = job.reported = job.emitted
                self.order.append(job.name)
                self._submit_stream(job)
        elif job is None:
            return
        elif isinstance(message, Refuse):
            del self.by_ticket[effect.gateway, message.ticket]
            job.refuse, job.answered_s = message, self.now_s
            self._end(job, str(message.reason))
        elif job.grant is not None and job.grant.lease_id == message.lease_id:
            self._return(job, "preempted")
            job.num_preempted += 1
            self._ask(job)

    def _return(self, job: Job, outcome: str) -> None:
        assert job.grant is not None
        self._stop(job)
        del self.by_ticket[job.gateway, job.ticket]
        made = job.emitted - job.emitted_at_grant
        self.tell(
            FromGateway(
                job.gateway, Release(job.ticket, job.grant.lease_id, job.prompt_tokens, made, outcome)
            )
        )

    def _fenced(self, fence: Fence) -> None:
        for job in list(self.by_ticket.values()):
            if (
                job.grant is not None
                and job.grant.engine_id == fence.engine_id
                and job.grant.epoch <= fence.epoch
            ):
                job.avoid = (*job.avoid, fence.engine_id)
                self._return(job, "lost")
                job.num_preempted += 1
                self._ask(job)

    # engines ---------------------------------------------------------------------------------------------

    def _engine_up(self, e: SimEngineHost) -> None:
        up = EngineUp(e.name, "x:1", "m", e.slots, e.kv_tokens, 16, 100_000, e.pool, epoch=e.epoch)
        self.tell(FromEngine(up))
        self.after(2 * WIRE_S + 1e-6, lambda: self._learn_epoch(e))

    def _learn_epoch(self, e: SimEngineHost) -> None:
        if self.queue is not None and e.name in self.queue.state.fleet.engines:
            e.epoch = self.queue.state.fleet.engines[e.name].epoch

    def kill_engine(self, name: str) -> None:
        """It stops at once; the queue's link to it breaks."""
        engine = self.engines[name]
        engine.alive = False
        engine.streams.clear()
        engine.inside.clear()
        self.tell(EngineUnlinked(name))

    def _submit_stream(self, job: Job) -> None:
        assert job.grant is not None
        engine = self.engines[job.grant.engine_id]
        if engine.alive:
            engine.inside.append(job)
            self._fill(engine)

    def _fill(self, engine: SimEngineHost) -> None:
        while engine.inside and len(engine.streams) < engine.slots:
            job = engine.inside.popleft()
            if job.grant is None or job.outcome:
                continue
            engine.streams[job.name] = job.ticket
            prefill_s = (job.prompt_tokens + job.emitted) / engine.prefill_tokens_per_s
            self.after(prefill_s + engine.pace_s, lambda j=job, t=job.ticket: self._token(engine, j, t))

    def _token(self, engine: SimEngineHost, job: Job, ticket: int) -> None:
        if engine.streams.get(job.name) != ticket or not engine.alive:
            return
        job.emitted += 1
        engine.tokens_total += 1
        engine.busy_s += engine.pace_s
        if job.first_token_s is None:
            job.first_token_s = self.now_s
        if job.emitted >= job.output_tokens:
            self._return(job, "completed")
            self._end(job, "completed")
        else:
            self.after(engine.pace_s, lambda: self._token(engine, job, ticket))

    def _stop(self, job: Job) -> None:
        """Abort on the engine."""
        if job.grant is not None:
            engine = self.engines[job.grant.engine_id]
            if engine.streams.get(job.name) == job.ticket:
                del engine.streams[job.name]
            if job in engine.inside:
                engine.inside.remove(job)
            self._fill(engine)

    def _report(self) -> None:
        for engine in self.engines.values():
            if engine.alive and self.queue is not None:
                running = len(engine.streams)
                free = engine.kv_tokens - 100 * running
                load = EngineLoad(
                    engine.name, running, len(engine.inside), free, engine.pace_s if running else 0.0,
                    engine.tokens_total,
                )  # fmt: skip
                self.tell(FromEngine(load))
        moved: dict[str, list[tuple[int, int]]] = {}
        for (gateway, ticket), job in self.by_ticket.items():
            if job.grant is not None:
                moved.setdefault(gateway, []).append((ticket, job.emitted - job.reported))
                job.reported = job.emitted
        for gateway, rows in moved.items():
            tickets, counts = zip(*rows, strict=True)
            self.tell(FromGateway(gateway, Progress(tickets, counts)))


def jain(shares: list[float]) -> float:
    """Jain's fairness index: 1 is equal, 1/n is one takes all."""
    return sum(shares) ** 2 / (len(shares) * sum(s * s for s in shares))


def quantile(values: list[float], share: float) -> float:
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))]
