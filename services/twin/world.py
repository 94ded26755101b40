"""One world of the twin: gateways, engines, a queue, a network, clients and faults, all drawn from one seed.

Rules: small on purpose (a seed costs tens of milliseconds); what finds faults is the number of seeds. Everything is
decided by `Random(seed)`: the same seed is the same world, event by event.
"""

from __future__ import annotations

from random import Random

from ..config import CacheConfig
from . import drawing, faults
from .cache_node import CacheNode
from .engine_node import EngineNode
from .gateway_node import JOURNAL, ROOT_SECRET, GatewayNode
from .journal_node import JournalNode
from .kernel import Simulation
from .network import Network
from .oracle import Oracle
from .queue_node import QueueNode
from .returning import Reader
from .workload import Ask

TROUBLE_S = 2.5
"""Faults begin before this."""
HEAL_S = 5.2
"""Nothing is broken on purpose after this."""
END_S = 60.0
"""Whatever has not ended by then waits for ever."""
SWEEP_S = 0.25
EXTRAS = 0.15
"""Part of the worlds that have two revisions of the model, part that has a journal, and part where many ask the same
and leave."""

CUT_OFF = 0.3
"""Part of the worlds with a journal where a gateway loses sight of it for longer than its answers stay its own."""


class World:
    """See the module. `check` hooks run after every event, by the oracle."""

    def __init__(self, seed: int, *, keep_log: bool = False) -> None:
        self.seed = seed
        self.sim = Simulation(seed, keep_log=keep_log)
        self.releases, journals = self.has(seed, "releases"), self.has(seed, "journal")
        cut_off = journals and Random(f"cut off {seed}").random() < CUT_OFF
        rng = Random(f"world {seed}")
        self.oracle = Oracle(self.sim)
        self.network = Network(self.sim, latency_s=rng.choice((0.0002, 0.001, 0.01)))
        self.queue = QueueNode(
            self.sim, self.network, "queue", drawing.queue_config(rng, self.releases), self.oracle
        )
        self.cache = CacheNode(self.sim, self.network, "cache", CacheConfig(root_secret=ROOT_SECRET))  # type: ignore[arg-type]
        self.journal = JournalNode(self.sim, self.network, "journal", JOURNAL) if journals else None
        revisions = drawing.revisions(rng) if self.releases else [("", 0.0)] * rng.choice((1, 2, 2, 3, 4))
        self.engines = [
            EngineNode(
                self.sim, self.network, f"e{number}", "queue", drawing.timing(rng), model="sim", pool="default",
                revision=revision,
            )
            for number, (revision, _) in enumerate(revisions)
        ]  # fmt: skip
        self._born_s = [born_s for _, born_s in revisions]
        if self.releases:
            self.oracle.revisions = (drawing.OLD, drawing.NEW)
        self.gateways = [
            GatewayNode(
                self.sim,
                self.network,
                f"g{number}",
                self.oracle,
                model="sim",
                journal="journal" if journals else "",
            )
            for number in range(rng.choice((2, 2, 3) if journals else (1, 2, 2, 3)))
        ]
        self.queue.num_gateways = len(self.gateways)
        self.oracle.small_budget = rng.random() < 0.3
        for gateway in self.gateways:
            gateway.burst_tokens = 30 if self.oracle.small_budget else 2_000_000
        for engine in self.engines:
            self.oracle.slots[engine.name] = engine.timing.max_num_seqs
        asks = [
            drawing.new_ask(rng, number, len(self.gateways)) for number in range(rng.choice((4, 6, 10, 14)))
        ]
        asks += [drawing.again(rng, ask, len(asks) + i) for i, ask in enumerate(asks) if rng.random() < 0.25]
        if self.has(seed, "crowd"):
            asks += drawing.crowd(Random(f"who crowds {seed}"), asks, len(self.gateways))
        if journals:
            asks = [drawing.kept(rng, ask, long=cut_off) for ask in asks]
        old = [engine for engine in self.engines if engine.revision != drawing.NEW]
        self.asks = drawing.affordable(asks, [engine.timing for engine in old])
        cast = faults.Cast(
            [e.name for e in self.engines],
            [g.name for g in self.gateways],
            journal=journals,
            cut_off=cut_off,
            releases=self.releases,
        )
        self.script = faults.draw(rng, TROUBLE_S, cast)
        central = [self.queue, self.cache] if self.journal is None else [self.queue, self.cache, self.journal]
        self.processes = [*central, *self.engines, *self.gateways]
        self.readers: list[Reader] = []

    @staticmethod
    def has(seed: int, what: str) -> bool:
        """Whether that seed's world has "releases", a "journal" or a "crowd"; known without making it."""
        return Random(f"{what} {seed}").random() < EXTRAS

    def engine(self, name: str) -> EngineNode:
        return next(engine for engine in self.engines if engine.name == name)

    def gateway(self, name: str) -> GatewayNode:
        return next(gateway for gateway in self.gateways if gateway.name == name)

    def run(self) -> None:
        """Live through it all. Raises Violation."""
        sim = self.sim
        late = {
            engine.name: born_s for engine, born_s in zip(self.engines, self._born_s, strict=True) if born_s
        }
        for process in self.processes:
            if process.name in late:
                sim.at(late[process.name], None, process.start)
            else:
                process.start()
        for ask in self.asks:
            if ask.key:
                self._read(ask)
                continue
            gateway = self.gateways[ask.gateway]
            sim.at(ask.at_s, None, self._knock, gateway, ask)
            if ask.cancel_s is not None:
                sim.at(ask.cancel_s, None, self._leave, gateway, ask)
        for fault in self.script:
            sim.at(fault.at_s, None, faults.apply, self, fault)
        last_s = max([HEAL_S if self.script else 0.0, *(ask.at_s + 0.01 for ask in self.asks)])
        sim.at(HEAL_S, None, self._heal)
        while sim.now_s < END_S:
            sim.run(sim.now_s + SWEEP_S)
            if self.oracle.first is not None:
                raise self.oracle.first
            self._sweep()
            if sim.now_s >= last_s and self._at_rest():
                break
        self._check_end()

    def _read(self, ask: Ask) -> None:
        """One or two clients with one key; the second asks a little later."""
        rng = Random(f"readers {self.seed} {ask.number}")
        for number in range(rng.choice((1, 1, 2))):
            reader = Reader(ask, number, self.oracle, self.gateways, rng)
            self.readers.append(reader)
            self.sim.at(ask.at_s + number * rng.choice((0.0, 0.01, 0.3)), None, self._arrive, reader)

    def _arrive(self, reader: Reader) -> None:
        record = self.oracle.requests.get(reader.ask.request_id)
        if record is None:
            record = self.oracle.arrived(reader.ask)
        if not record.ended:
            record.readers += 1
            reader.connect()

    def _knock(self, gateway: GatewayNode, ask: Ask) -> None:
        """A client connects; nobody listens while the gateway is down."""
        if gateway.alive:
            gateway.after(0.0, gateway.admit, ask)

    def _leave(self, gateway: GatewayNode, ask: Ask) -> None:
        if gateway.alive:
            gateway.after(0.0, gateway.client_gone, ask)

    def _heal(self) -> None:
        self.network.heal_all()
        for process in self.processes:
            process.resume()

    def _sweep(self) -> None:
        for engine in self.engines:
            if engine.alive and not engine.stopped:
                self.oracle.sweep(engine.name, engine.running(), engine.num_computing())
        able = {gateway.link_name for gateway in self.gateways if gateway.alive and not gateway.stopped}
        self.oracle.sweep_gateways(able)

    def _at_rest(self) -> bool:
        if self.oracle.unfinished():
            return False
        return not self._left_behind()

    def _left_behind(self) -> list[str]:
        """What remains of requests, anywhere."""
        rest: list[str] = []
        for engine in self.engines:
            if not engine.alive:
                rest.append(f"{engine.name} is down")
            elif len(engine.rank.streams):
                rest.append(f"{len(engine.rank.streams)} streams on {engine.name}")
        for gateway in self.gateways:
            if not gateway.alive:
                rest.append(f"{gateway.name} is down")
            elif (
                gateway.tasks
                or gateway.client.num_held
                or gateway.client.num_waiting
                or gateway.mux.num_streams
            ):
                rest.append(f"requests or leases at {gateway.name}")
            elif gateway.num_answers:
                rest.append(f"journalled answers at {gateway.name}")
        if not self.queue.alive:
            rest.append("the queue is down")
        else:
            for scheduler in self.queue.authority.schedulers:
                tables = scheduler.state.gateways.items()
                rest += [f"tickets of {name} at the queue" for name, table in tables if table]
        return rest

    def _check_end(self) -> None:
        if waiting := self.oracle.unfinished():
            raise self.oracle.broken(8, f"{', '.join(waiting)} never came to an end")
        if rest := self._left_behind():
            raise self.oracle.broken(14, f"left behind: {', '.join(rest)}")
        burst = sum(gateway.burst_tokens * gateway.incarnation for gateway in self.gateways)
        self.oracle.check_budget(burst, 0.2)
