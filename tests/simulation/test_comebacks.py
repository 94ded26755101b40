"""How long a death is noticed, on a virtual clock: what the mesh's own waits add up to, without what a busy host adds.
The real gateways, queue, journal and engines of the twin; engines of 50 tokens per second and stream.

1. A gateway dies and its clients come back at once, to another: where engines have room each sees its next token within
   the time that its owner has to come back, and a fifth of a second.
2. So it is where engines are full, within a second and a half: the dead gateway's leases end before.
3. An engine dies: its streams go on elsewhere within a fifth of a second, whatever was emitted is computed again.
4. The only engine of a revision dies: answers that began with it wait until it is back (ADR 0021), and a third of a
   second at most. Others notice nothing.
5. The queue dies and stays away: who waits gets the place of whoever ends, on any engine, and nobody waits for the next
   queue. Where only the link is cut, all wait: the queue lives and gives the places away itself.

And nobody loses a token, or gets one twice: the oracle looks on.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from random import Random

import pytest

from services.answer import Delta
from services.config import CacheConfig, QueueConfig
from services.experts.sim_model import SimTiming
from services.request import SamplingParams
from services.sim_tokenizer import encode
from services.twin.cache_node import CacheNode
from services.twin.engine_node import EngineNode
from services.twin.gateway_node import JOURNAL, ROOT_SECRET, GatewayNode
from services.twin.journal_node import JournalNode
from services.twin.kernel import Simulation
from services.twin.network import Network
from services.twin.oracle import Oracle
from services.twin.queue_node import QueueNode
from services.twin.returning import Reader
from services.twin.workload import Ask

NUM_ENGINES = 3
TOKENS, STEP_S = 120, 0.02
DEATH_S, END_S = 2.0, 12.0
CALM_S = 0.2


class Returning(Reader):
    """Comes back at once."""

    def later(self) -> None:
        sim = self.oracle.sim
        sim.at(sim.now_s + 0.02, None, self.connect)


class Watch(Oracle):
    """Notes when each client got something."""

    def __init__(self, sim: Simulation) -> None:
        super().__init__(sim)
        self.seen_s: dict[int, list[float]] = {}

    def shown(self, ask: Ask, delta: Delta, view: list | None = None) -> None:  # type: ignore[type-arg]
        self.seen_s.setdefault(ask.number, []).append(self.sim.now_s)
        super().shown(ask, delta, view)

    def pauses_s(self) -> list[float]:
        """Of each who was reading when it happened: until the next token, longest first."""
        found: list[float] = []
        for times_s in self.seen_s.values():
            before, after = [t for t in times_s if t <= DEATH_S], [t for t in times_s if t > DEATH_S]
            if before and after:
                around = [before[-1], *after[:3]]
                found.append(max(b - a for a, b in itertools.pairwise(around)))
        return sorted(found, reverse=True)


class Mesh:
    """Three engines, two gateways, and clients who all ask within a second."""

    def __init__(self, clients: int, slots: int, revisions: tuple[str, ...] = ("",) * NUM_ENGINES) -> None:
        self.sim = sim = Simulation(7)
        self.oracle = oracle = Watch(sim)
        network = Network(sim, latency_s=0.0005)
        self.network = network
        self.queue = queue = QueueNode(sim, network, "queue", QueueConfig(), oracle)
        cache = CacheNode(sim, network, "cache", CacheConfig(root_secret=ROOT_SECRET))  # type: ignore[arg-type]
        timing = SimTiming(step_s=STEP_S, max_num_seqs=slots)
        self.engines = [
            EngineNode(sim, network, f"e{i}", "queue", timing, model="sim", pool="default", revision=name)
            for i, name in enumerate(revisions)
        ]
        self.gateways = [
            GatewayNode(sim, network, f"g{number}", oracle, model="sim", journal="journal")
            for number in (0, 1)
        ]
        queue.num_gateways = 2
        oracle.slots = {engine.name: slots for engine in self.engines}
        journal = JournalNode(sim, network, "journal", JOURNAL)
        for process in (queue, cache, journal, *self.engines, *self.gateways):
            process.start()
        for number in range(clients):
            sim.at(0.5 + number / clients, None, self._ask, number)

    def _ask(self, number: int) -> None:
        sampled = {"temperature": 1.0, "seed": 7} if number % 3 == 0 else {"temperature": 0.0}
        ask = Ask(
            number, self.sim.now_s, number % 2, "a", "standard", encode(f"please {number} tell"),
            SamplingParams(TOKENS, **sampled), 300.0, key=f"k{number}",
        )  # fmt: skip
        self.oracle.arrived(ask).readers += 1
        Returning(ask, 0, self.oracle, self.gateways, Random(number)).connect()

    def pauses_s(self) -> list[float]:
        """After everybody has the whole answer."""
        self.sim.run(END_S)
        if self.oracle.first is not None:
            raise self.oracle.first
        assert not self.oracle.unfinished()
        return self.oracle.pauses_s()


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_1_a_gateway_dies_and_engines_have_room() -> None:
    mesh = Mesh(clients=24, slots=64)
    mesh.sim.at(DEATH_S, None, mesh.gateways[0].crash, END_S)
    assert max(mesh.pauses_s()) <= JOURNAL.owner_grace_s + CALM_S


def test_2_a_gateway_dies_and_engines_are_full() -> None:
    mesh = Mesh(clients=36, slots=8)
    mesh.sim.at(DEATH_S, None, mesh.gateways[0].crash, END_S)
    pauses_s = mesh.pauses_s()
    assert len(pauses_s) == NUM_ENGINES * 8
    assert max(pauses_s) <= 1.5


def test_3_an_engine_dies() -> None:
    mesh = Mesh(clients=24, slots=64)
    mesh.sim.at(DEATH_S, None, mesh.engines[0].crash, END_S)
    pauses_s = mesh.pauses_s()
    assert sum(pause_s > STEP_S + 0.005 for pause_s in pauses_s) >= len(pauses_s) // NUM_ENGINES
    assert max(pauses_s) <= CALM_S


@pytest.mark.parametrize("away_s", [0.5, 3.0])
def test_4_the_only_engine_of_a_revision_dies(away_s: float) -> None:
    mesh = Mesh(clients=24, slots=64, revisions=("v1", "v1", "v2"))
    mesh.oracle.revisions = ("v1", "v2")
    mesh.sim.at(DEATH_S, None, mesh.engines[2].crash, away_s)
    pauses_s = mesh.pauses_s()
    waited = [pause_s for pause_s in pauses_s if pause_s >= away_s]
    assert 0 < len(waited) < len(pauses_s)
    assert max(waited) <= away_s + 0.3
    assert max(pauses_s[len(waited) :]) <= STEP_S + 0.05


def first_seen_s(mesh: Mesh) -> list[float]:
    mesh.pauses_s()
    return [min(times_s) for times_s in mesh.oracle.seen_s.values()]


def test_5_the_queue_dies_and_stays_away() -> None:
    mesh = Mesh(clients=40, slots=8)
    mesh.sim.at(DEATH_S, None, mesh.queue.crash, 6.0)
    began_s = first_seen_s(mesh)
    late = [when_s for when_s in began_s if when_s > DEATH_S + 0.1]
    assert len(began_s) == 40 and len(late) >= 8
    assert mesh.oracle.num_handed_on == len(late)
    assert max(late) <= DEATH_S + TOKENS * STEP_S + CALM_S


def test_5_a_queue_that_is_only_out_of_sight_is_not_dead() -> None:
    mesh = Mesh(clients=40, slots=8)
    for gateway in mesh.gateways:
        mesh.sim.at(DEATH_S, None, mesh.network.block, gateway.name, "queue")
        mesh.sim.at(DEATH_S + 3.0, None, mesh.network.heal, gateway.name, "queue")
    began_s = first_seen_s(mesh)
    assert len(began_s) == 40
    assert mesh.oracle.num_handed_on == 0
