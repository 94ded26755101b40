"""Invariants of the queue's core, under any sequence of events.

1.  Parts agree after every decision (`check_integrity`).
2.  A ticket gets at most one of Grant and Refuse, and a lease id belongs to one ticket only.
3.  No engine holds more leases than its depth at the moment of a grant.
4.  Reserve never broken: no request of a band below its reserve waits while another band holds borrowed slots.
5.  Work-conserving: with a free slot, nobody who may take it waits.
6.  Strict bands: a lower level is granted nothing (its own reserve apart) while a higher one that may take it waits.
7.  Replays are identical: the same events give the same effects.
8.  Every waiting request ends: with capacity and time, or with its deadline.
"""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.config import BandConfig, QueueConfig
from services.link.messages import (
    Acquire,
    CancelTicket,
    EngineLoad,
    EngineUp,
    Grant,
    Holding,
    Preempt,
    Progress,
    Refuse,
    Release,
)
from services.queue.entry import LEASED, PREEMPTING, WAITING
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
from services.queue.ordering import names
from services.queue.scheduler import Scheduler

BANDS = (
    BandConfig(name="vip", rank=0, reserved_share=0.25, preemptible=False),
    BandConfig(name="standard", rank=1, ageing_s=5.0, reserved_slots=1),
    BandConfig(name="batch", rank=2, ageing_s=8.0),
)
ENGINES = ("e0", "e1")

acquires = st.tuples(
    st.just("acquire"), st.sampled_from("gh"), st.sampled_from(("vip", "standard", "batch", "batch")),
    st.sampled_from(("a", "b", "c")), st.integers(1, 60), st.sampled_from((0.0, 0.0, 9.0, 30.0)),
    st.sampled_from((0.4, 20.0, 600.0)), st.booleans(),
)  # fmt: skip
others = st.one_of(
    st.tuples(st.just("release"), st.integers(0, 30), st.sampled_from(("completed", "cancelled", "lost"))),
    st.tuples(st.just("cancel"), st.integers(0, 30)),
    st.tuples(st.just("progress"), st.integers(0, 30), st.integers(0, 20)),
    st.tuples(st.just("obey"), st.integers(0, 30)),
    st.tuples(st.just("tick"), st.sampled_from((0.05, 0.3, 2.0, 6.0))),
    st.tuples(st.just("load"), st.sampled_from(ENGINES), st.integers(0, 3)),
    st.tuples(st.just("up"), st.sampled_from(ENGINES)),
    st.tuples(st.just("down"), st.sampled_from(ENGINES)),
    st.tuples(st.just("lose_gateway"), st.sampled_from("gh")),
    st.tuples(st.just("again"), st.integers(0, 30)),
)
scripts = st.lists(st.one_of(acquires, acquires, others), min_size=5, max_size=60)


class Driver:
    """Turns a script into events, keeps what gateways would know, and checks after every decision."""

    def __init__(self, ordering: str = "token_fairness") -> None:
        config = QueueConfig(
            bands=BANDS, ordering=ordering, lease_ttl_s=4.0, max_queued=40, max_tenant_queued=15
        )
        self.scheduler = Scheduler(config)
        self.now_s = 100.0
        self.tickets: dict[tuple[str, int], str] = {}
        self.leases: dict[tuple[str, int], int] = {}
        self.places: dict[tuple[str, int], tuple[str, int]] = {}
        self.lease_ids: dict[int, tuple[str, int]] = {}
        self.asked: dict[tuple[str, int], Acquire] = {}
        self.last_ticket = 0
        self.totals = dict.fromkeys(ENGINES, 0)
        self.effects: list[Effect] = []
        for engine in ENGINES:
            self.step(FromEngine(EngineUp(engine, "x:1", "m", 8, 100_000, 16, 4096)))

    def step(self, event: Event) -> None:
        effects = self.scheduler.decide(event, self.now_s)
        self.effects += effects
        state = self.scheduler.state
        state.check_integrity()
        grants: list[Grant] = []
        for effect in effects:
            if isinstance(
                effect, ToAllGateways
            ):  # gateways abandon these streams; nobody asks with the old ticket
                fence = effect.message
                for key, (engine_id, epoch) in self.places.items():
                    if engine_id == fence.engine_id and epoch <= fence.epoch and self.tickets[key] == "held":
                        self.tickets[key] = "done"
            if not isinstance(effect, ToGateway):
                continue
            key = effect.gateway, effect.message.ticket
            match effect.message:
                case Grant() as grant:
                    again = self.leases.get(key) == grant.lease_id
                    assert again or self.tickets.get(key, "waiting") == "waiting", (
                        f"{key} was {self.tickets[key]}"
                    )
                    assert self.lease_ids.setdefault(grant.lease_id, key) == key
                    self.tickets[key], self.leases[key] = "held", grant.lease_id
                    self.places[key] = grant.engine_id, grant.epoch
                    if not again:
                        grants.append(grant)
                        engine = state.fleet.engines[grant.engine_id]
                        assert engine.used <= engine.capacity
                case Refuse():
                    assert self.tickets.get(key, "waiting") == "waiting"
                    self.tickets[key] = "refused"
                case Preempt():
                    self.tickets[key] = "told"
        self.check_order(grants, effects)

    def check_order(self, grants: list[Grant], effects: list[Effect]) -> None:
        state = self.scheduler.state
        pools = state.pools
        free = any(e.up and e.used < e.capacity for e in state.fleet.engines.values())
        for band in state.bands.all:
            if pools.below_reserve(band.index) and len(band.own):
                assert pools.borrowed == 0 and not free, f"{band.config.name} waits below its reserve"
            for head in (band.own.peek(), band.aged.peek()):
                if free and head is not None:
                    assert not pools.may_take(head.band, head.preemptible), (
                        "a slot is free and somebody waits"
                    )
        granted = {(e.gateway, e.message.ticket) for e in effects if isinstance(e, ToGateway)}
        for gateway, ticket in granted:
            entry = state.gateways.get(gateway, {}).get(ticket)
            if entry is None or entry.state != LEASED or entry.granted_s != self.now_s or not grants:
                continue
            for band in state.bands.all[: entry.level]:
                head = band.own.peek()
                if head is None or pools.used[entry.band] <= pools.reserve[entry.band]:
                    continue
                assert not head.preemptible and pools.borrowed > 0, "a lower level went first"

    def play(self, script: list[tuple[object, ...]]) -> None:
        for action in script:
            getattr(self, str(action[0]))(*action[1:])

    def acquire(
        self, gateway: str, band: str, tenant: str, tokens: int, age_s: float, remaining_s: float, soft: bool
    ) -> None:
        self.last_ticket += 1
        message = Acquire(
            self.last_ticket, f"r{self.last_ticket}", "m", tenant, band, tokens, tokens, age_s, remaining_s,
            preemptible=soft,
        )  # fmt: skip
        self.asked[gateway, self.last_ticket] = message
        self.tickets[gateway, self.last_ticket] = "waiting"
        self.step(FromGateway(gateway, message))

    def pick(self, index: int, *kinds: str) -> tuple[str, int] | None:
        keys = [key for key, kind in self.tickets.items() if kind in kinds]
        return keys[index % len(keys)] if keys else None

    def release(self, index: int, outcome: str) -> None:
        if (key := self.pick(index, "held")) is not None:
            self.tickets[key] = "done"
            self.step(FromGateway(key[0], Release(key[1], self.leases[key], 5, 7, outcome)))

    def obey(self, index: int) -> None:
        """A gateway answers a preemption: lease back, and ask again with what was emitted."""
        if (key := self.pick(index, "told")) is not None:
            self.tickets[key] = "done"
            self.step(FromGateway(key[0], Release(key[1], self.leases[key], 5, 3, "preempted")))
            told = self.asked[key]
            self.last_ticket += 1
            again = key[0], self.last_ticket
            self.asked[again] = Acquire(
                again[1], told.request_id, "m", told.tenant, told.band, told.prompt_tokens, told.max_tokens,
                told.age_s + 1.0, told.remaining_s, emitted_tokens=min(3, told.max_tokens - 1), registered=True,
            )  # fmt: skip
            self.tickets[again] = "waiting"
            self.step(FromGateway(key[0], self.asked[again]))

    def cancel(self, index: int) -> None:
        if (key := self.pick(index, "waiting", "held", "told")) is not None:
            self.tickets[key] = "done"
            self.step(FromGateway(key[0], CancelTicket(key[1])))

    def progress(self, index: int, tokens: int) -> None:
        if (key := self.pick(index, "held")) is not None:
            self.step(FromGateway(key[0], Progress((key[1], 999_999), (tokens, 1))))

    def tick(self, by_s: float) -> None:
        self.now_s += by_s
        if by_s < 1.0:
            for engine in ENGINES:
                self.load(engine, 0)
        self.step(Tick())

    def load(self, engine: str, waiting: int) -> None:
        state = self.scheduler.state.fleet.engines.get(engine)
        if state is None or not state.up:
            return  # nobody hears it
        running = len(state.leases)
        self.totals[engine] += 1
        self.step(FromEngine(EngineLoad(engine, running, waiting, 50_000, 0.02, self.totals[engine])))

    def up(self, engine: str) -> None:
        known = self.scheduler.state.fleet.engines.get(engine)
        epoch = known.epoch if known is not None and self.last_ticket % 2 else 0
        self.step(FromEngine(EngineUp(engine, "x:1", "m", 8, 100_000, 16, 4096, epoch=epoch)))

    def down(self, engine: str) -> None:
        self.step(EngineUnlinked(engine))

    def lose_gateway(self, gateway: str) -> None:
        """The link breaks and comes back: holdings first, then what waits."""
        self.step(GatewayLost(gateway))
        mine = [(key, kind) for key, kind in self.tickets.items() if key[0] == gateway]
        for key, kind in mine:
            entry = self.scheduler.state.gateways.get(gateway, {}).get(key[1])
            if kind == "held" and entry is not None:
                self.step(
                    FromGateway(
                        gateway, Holding(self.asked[key], self.leases[key], entry.engine_id, entry.epoch, 3)
                    )
                )
        for key, kind in mine:
            if kind == "waiting":
                self.step(FromGateway(gateway, self.asked[key]))

    def again(self, index: int) -> None:
        """The same Acquire twice."""
        if (key := self.pick(index, "waiting", "held")) is not None:
            self.step(FromGateway(key[0], self.asked[key]))

    def finish(self) -> None:
        """Everything that waits is served, refused or late in the end."""
        for _ in range(60):
            for engine in ENGINES:
                known = self.scheduler.state.fleet.engines.get(engine)
                if known is None or not known.up:
                    self.up(engine)
            self.tick(0.5)
            for key in [key for key, kind in self.tickets.items() if kind in ("held", "told")]:
                self.tickets[key] = "done"
                self.step(FromGateway(key[0], Release(key[1], self.leases[key], 5, 7, "completed")))
            if not self.scheduler.state.bands.waiting:
                break
        states = [e.state for table in self.scheduler.state.gateways.values() for e in table.values()]
        assert WAITING not in states


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(scripts, st.sampled_from(names()))
def test_invariants_1_to_6_and_8_hold(script: list[tuple[object, ...]], ordering: str) -> None:
    driver = Driver(ordering)
    driver.play(script)
    driver.finish()


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(scripts)
def test_7_replays_are_identical(script: list[tuple[object, ...]]) -> None:
    one, two = Driver(), Driver()
    one.play(script)
    two.play(script)
    assert one.effects == two.effects


def test_held_and_told_tickets_are_what_the_queue_thinks() -> None:
    driver = Driver()
    driver.play([("acquire", "g", "batch", "a", 10, 0.0, 600.0, True)] * 12)
    table = driver.scheduler.state.gateways["g"]
    held = {ticket for ticket, entry in table.items() if entry.state in (LEASED, PREEMPTING)}
    assert held == {ticket for (_, ticket), kind in driver.tickets.items() if kind == "held"}
