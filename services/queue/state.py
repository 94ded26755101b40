"""The whole state of one model's queue, and the few moves that keep its parts in step.

Rules: every change that touches two parts (a lane and the backlog, an engine and the pools, …) is a method here, so
that `check_integrity` can hold them against one another. When to move is decided in scheduler.py and dispatch.py.
"""

from __future__ import annotations

from ..config import BandConfig, QueueConfig
from ..errors import ConfigError
from ..link.messages import Grant, Preempt, Refuse
from ..outcome import Reason
from .admission import Backlog
from .bands import Bands
from .calm import Calm
from .costs import Costs, share
from .deadlines import DeadlineWatch, ServiceRate
from .engines import EngineState
from .entry import GONE, LEASED, PARKED, PREEMPTING, WAITING, Entry
from .events import Effect, ToGateway
from .fairness import Prices
from .fleet import Fleet
from .leases import LeaseBook
from .light import TenantSlots
from .outlook import Outlook
from .plain import plain
from .pools import Pools
from .rollout.counts import EndCounts
from .routing.prefix import PrefixIndex
from .stats import BandCounts
from .tenants import TenantBook

OUTPUT_MEMORY = 0.02
COST_MEMORY = 0.01


class QueueState:
    """Parts and moves. `effects` collects what the present decision does."""

    def __init__(self, config: QueueConfig, incarnation: int) -> None:
        self.config = plain(config)
        self.bands = Bands(tuple(map(plain, config.bands)), config.ordering)
        self.configs: list[BandConfig] = [band.config for band in self.bands.all]
        self.pools = Pools(self.configs)
        self.calm = Calm(self.configs)
        self.pool_of = dict(self.bands.index_of)
        self.backlog = Backlog(len(self.configs))
        self.slots = [TenantSlots() for _ in self.configs]
        self.deadlines = DeadlineWatch()
        self.rate = ServiceRate()
        self.leases = LeaseBook(config.lease_ttl_s, incarnation << 20)
        self.fleet = Fleet(incarnation)
        self.outlook = Outlook(self.fleet, len(self.configs))
        self.prefixes = PrefixIndex()
        self.prices = Prices(config.input_token_cost, config.output_token_cost)
        self.costs = Costs(config.prices)
        self.now_s = 0.0
        self.gateways: dict[str, dict[int, Entry]] = {}
        self.counts = [BandCounts() for _ in self.configs]
        self.tenants = TenantBook()
        self.effects: list[Effect] = []
        self.mean_output_tokens = 0.0
        self.mean_cost = 0.0
        self.last_seq = 0
        self.ends = EndCounts()
        self.resuming = 0

    def reconfigure(self, config: QueueConfig) -> None:
        """New limits; raises ConfigError when bands would appear, vanish or change rank, or the ordering change."""
        ranked = sorted(map(plain, config.bands), key=lambda band: band.rank)
        if [b.name for b in ranked] != [
            b.name for b in self.configs
        ] or config.ordering != self.config.ordering:
            raise ConfigError(
                "limits may change at run time; the bands' names, their order and the ordering may not"
            )
        self.config, self.configs = plain(config), ranked
        self.bands.configure(ranked)
        self.pools.configure(ranked)
        self.calm.configure(ranked)
        self.prices = Prices(config.input_token_cost, config.output_token_cost)
        self.leases.ttl_s = config.lease_ttl_s
        self.resize()

    def resize(self) -> None:
        """Capacity changed."""
        shared, own = self.fleet.slots(self.pool_of, len(self.configs))
        self.pools.resize(shared, own)

    def expected_output(self, max_tokens: int) -> float:
        """Output tokens to expect of a request: the learnt mean, at most what it asked for."""
        mean = self.mean_output_tokens
        return mean if 0.0 < mean < max_tokens else float(max_tokens)

    def tell(self, entry: Entry, message: Grant | Refuse | Preempt) -> None:
        self.effects.append(ToGateway(entry.gateway, message))

    # waiting -------------------------------------------------------------------------------------------

    def enqueue(self, entry: Entry, begin_by_s: float) -> None:
        """A request begins to wait; it must begin by `begin_by_s`, as far as can be told now."""
        band, cost = entry.band, entry.cost
        self.gateways[entry.gateway][entry.ticket] = entry
        self.bands.add(entry)
        self.backlog.add(band, entry.tenant, entry.wanted_tokens, cost, entry.deadline_s)
        self.deadlines.add(entry, begin_by_s)
        self.slots[band].wait(entry)
        if entry.pinned:
            self.resuming += 1
        mean = self.mean_cost
        self.mean_cost = mean + (cost - mean) * (COST_MEMORY if mean else 1.0)

    def unqueue(self, entry: Entry) -> None:
        """The entry left its lane (which knows already)."""
        band = entry.band
        self.backlog.remove(band, entry.tenant, entry.wanted_tokens, entry.cost, entry.deadline_s)
        self.deadlines.remove(entry)
        self.slots[band].leave(entry)
        if entry.pinned:
            self.resuming -= 1

    def drop(self, entry: Entry) -> None:
        """A waiting request leaves without a lease."""
        self.bands.leave(entry, GONE)
        self.unqueue(entry)
        self.gateways[entry.gateway].pop(entry.ticket, None)

    def refuse(self, entry: Entry, reason: Reason, message: str, retry_after_s: float = -1.0) -> None:
        """A waiting request is evicted, with a reason."""
        self.drop(entry)
        self.count_refusal(entry, reason)
        self.tell(entry, Refuse(entry.ticket, reason, message, retry_after_s))

    def count_refusal(self, entry: Entry, reason: Reason) -> None:
        self.counts[entry.band].refuse(reason)
        entry.counts.refuse(reason)

    # leases --------------------------------------------------------------------------------------------

    def grant(self, entry: Entry, engine: EngineState, now_s: float) -> None:
        """A lease for a waiting entry."""
        self.bands.leave(entry, LEASED)
        self.unqueue(entry)
        self.leases.open(entry, now_s)
        wait_s = entry.wait_s = now_s - entry.arrived_s
        self.attach(entry, engine)
        prompt, emitted, band_counts = entry.prompt_tokens, entry.emitted_tokens, self.counts[entry.band]
        engine.pending_prompt_tokens += prompt + emitted
        if entry.prefix:
            self.prefixes.learn(entry.prefix, engine.bit)
        if emitted:
            band_counts.resumed += 1
        if not entry.charged:  # the prompt was not paid for before a preemption or loss
            self.charge(entry, self.prices.input_token * prompt)
        if entry.protected:
            self.outlook.pauses.seen(now_s - entry.asked_s, now_s)
        counts = entry.counts
        counts.granted += 1
        counts.wait_sum_s += wait_s
        band_counts.waited(wait_s)
        self.tell_grant(entry)

    def tell_grant(self, entry: Entry) -> None:
        engine = entry.engine
        if engine is not None:
            grant = Grant(
                entry.ticket, entry.lease_id, entry.engine_id, engine.address, entry.epoch, entry.wait_s,
                engine.key, engine.group, engine.revision, entry.cost_per_s,
            )  # fmt: skip
            self.effects.append(ToGateway(entry.gateway, grant))

    def attach(self, entry: Entry, engine: EngineState) -> None:
        """The entry's lease occupies the engine."""
        if not engine.leases:
            engine.moved_s = max(engine.moved_s, entry.renewed_s)  # it idled: its silence meant nothing
        entry.engine, entry.engine_id, entry.epoch = engine, engine.engine_id, engine.epoch
        if engine.price_per_s:
            part = share(engine.model.depth, engine.kv_budget, entry.wanted_tokens)
            entry.cost_per_s = part * engine.price_per_s
        engine.take(entry)
        self.pools.take(entry)
        self.slots[entry.band].take(entry)

    def call_back(self, entry: Entry) -> None:
        """Preempt: its room is free at once, its lease ends when the gateway returns it."""
        self.vacate(entry)
        entry.state = PREEMPTING
        self.counts[entry.band].preempted += 1
        entry.counts.preempted += 1
        self.tell(entry, Preempt(entry.ticket, entry.lease_id))

    def vacate(self, entry: Entry) -> None:
        engine = entry.engine
        if engine is not None and entry.state == LEASED:
            engine.vacate(entry)
            if entry.cost_per_s:
                self._used(entry, engine)
            self.pools.give(entry)
            self.slots[entry.band].give(entry)

    def _used(self, entry: Entry, engine: EngineState) -> None:
        cost = entry.cost_per_s * (self.now_s - entry.granted_s)
        entry.counts.cost += cost
        self.counts[entry.band].cost += cost
        if engine.bill is not None:
            engine.bill.used += cost

    def end_lease(self, entry: Entry) -> None:
        """The lease is over, whatever the reason."""
        self.vacate(entry)
        entry.state, engine = GONE, entry.engine
        if engine is not None:
            engine.leases.pop(entry.seq, None)
            entry.engine = None
        self.leases.close(entry)
        table = self.gateways.get(entry.gateway)
        if table is not None and table.get(entry.ticket) is entry:
            del table[entry.ticket]

    def charge(self, entry: Entry, cost: float) -> None:
        """Service received goes on the tenant's bill and into the learnt rate."""
        lanes, band = self.bands.all, entry.band
        lanes[band].own.charge(entry.tenant, cost)
        if entry.level != band:  # it is one of the aged, too
            lanes[entry.level].aged.charge(entry.tenant, cost)
        self.rate.cost += cost

    def learn_output(self, tokens: int) -> None:
        """A request completed with `tokens` of output."""
        mean = self.mean_output_tokens
        step = OUTPUT_MEMORY if mean else 1.0
        self.mean_output_tokens = mean + ((tokens if tokens > 1 else 1) - mean) * step

    def check_integrity(self) -> None:
        """Raise AssertionError when parts disagree. O(everything): for tests."""
        self.bands.check_integrity()
        self.pools.check_integrity()
        self.fleet.check_integrity()
        entries = [entry for table in self.gateways.values() for entry in table.values()]
        waiting = [entry for entry in entries if entry.state == WAITING]
        held = [entry for entry in entries if entry.state in (LEASED, PREEMPTING)]
        assert not any(entry.state in (GONE, PARKED) for entry in entries)
        assert len(waiting) == self.bands.waiting == self.backlog.total == len(self.deadlines.items())
        assert sum(self.backlog.count) == self.backlog.total
        assert sum(row.count for row in self.backlog.by_tenant.values()) == self.backlog.total
        assert len({entry.lease_id for entry in held}) == len(held), "two leases with one id"
        on_engines = sum(len(engine.leases) for engine in self.fleet.engines.values())
        in_limbo = sum(1 for rest in self.fleet.limbo.values() for e in rest if e.state == LEASED)
        assert on_engines + in_limbo == len(held), f"{on_engines} + {in_limbo} leases, {len(held)} holders"
        for band, slots in enumerate(self.slots):
            assert sum(row.running for row in slots.rows.values()) == self.pools.used[band]
            assert sum(row.waiting for row in slots.rows.values()) == self.backlog.count[band]
            slots.check_integrity()
        assert sum(self.pools.used) == sum(engine.used for engine in self.fleet.engines.values())
