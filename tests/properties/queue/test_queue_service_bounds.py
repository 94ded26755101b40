"""What nobody can lose by others' load, under any of it.

1. Service gap (as in VTC, theorem 4.3 of Sheng et al., with weights): between two tenants of a band that both have a
   backlog all the time, the service received per weight differs by at most 2·(w_in·L_in + w_out·M) / least weight, L_in
   the longest prompt, M the most output that all slots can have under way.
2. No starvation: once a request has aged up to the top band, it and the aged requests before it wait for at most
   AGED_TURN grants each, however many requests of higher bands keep waiting.
"""

from __future__ import annotations

import random
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from services.config import BandConfig, QueueConfig
from services.link.messages import EngineLoad, EngineUp, Grant, Preempt, Progress, Release
from services.queue.bands import AGED_TURN
from services.queue.events import Event, FromEngine, FromGateway, Tick, ToGateway
from services.queue.scheduler import Scheduler
from tests.unit.queue.making import asking

BACKLOG = 12
"""Waiting requests per tenant: enough never to be one without backlog, whom other rules favour (light.py)."""


class Flood:
    """A queue with one engine, whose leases end in an order of chance with answers of chance."""

    def __init__(self, config: QueueConfig, slots: int, seed: int) -> None:
        self.rng = random.Random(seed)
        self.queue = Scheduler(config)
        self.now_s = 100.0
        self.last = self.total = 0
        self.held: dict[int, tuple[Grant, int, int]] = {}
        """Leases, tokens told of, tokens of the answer."""
        self.tenant_of: dict[int, str] = {}
        self.prompts: dict[int, int] = {}
        self.served: dict[str, float] = {}
        """Weighted tokens per tenant, as the test counts them."""
        self.granted: list[int] = []
        self.longest = 60
        self.decide(FromEngine(EngineUp("e0", "x:1", "m", slots, 1_000_000, 16, 4096)))

    def decide(self, event: Event) -> None:
        for effect in self.queue.decide(event, self.now_s):
            message = effect.message if isinstance(effect, ToGateway) else None
            if isinstance(message, Grant):
                self.held[message.ticket] = message, 0, self.rng.randrange(1, self.longest + 1)
                self.granted.append(message.ticket)
                self.serve(message.ticket, self.queue.state.prices.input_token * self.prompts[message.ticket])
            elif isinstance(message, Preempt):
                del self.held[message.ticket]
                self.decide(FromGateway("g", Release(message.ticket, message.lease_id, 1, 0, "preempted")))

    def serve(self, ticket: int, cost: float) -> None:
        tenant = self.tenant_of[ticket]
        self.served[tenant] = self.served.get(tenant, 0.0) + cost

    def ask(self, tenant: str, band: str, weight: float = 1.0) -> int:
        self.last += 1
        self.tenant_of[self.last] = tenant
        self.prompts[self.last] = self.rng.randrange(1, 201)
        told = asking(
            self.last, band, tenant=tenant, weight=weight, prompt_tokens=self.prompts[self.last],
            max_tokens=self.longest, remaining_s=36_000.0,
        )  # fmt: skip
        self.decide(FromGateway("g", told))
        return self.last

    def end_one(self) -> None:
        """A stream tells of part of its answer, and one ends."""
        self.now_s += 0.01
        output_token = self.queue.state.prices.output_token
        told = self.rng.choice(list(self.held))
        grant, made, output = self.held[told]
        more = self.rng.randrange(output - made + 1)
        self.held[told] = grant, made + more, output
        self.serve(told, output_token * more)
        self.decide(FromGateway("g", Progress((told,), (more,))))
        ticket = self.rng.choice(list(self.held))
        grant, made, output = self.held.pop(ticket)
        self.serve(ticket, output_token * (output - made))
        self.decide(FromGateway("g", Release(ticket, grant.lease_id, 1, output, "completed")))
        self.total += 1
        self.decide(FromEngine(EngineLoad("e0", len(self.held), 0, 900_000, 0.02, self.total)))


@settings(max_examples=20, deadline=None)
@given(
    st.integers(0, 999), st.integers(1, 8), st.lists(st.sampled_from((0.5, 1.0, 3.0)), min_size=2, max_size=4)
)
def test_1_the_service_gap_is_bounded(seed: int, slots: int, weights: list[float]) -> None:
    flood = Flood(QueueConfig(), slots, seed)
    tenants = {f"t{i}": weight for i, weight in enumerate(weights)}
    prices = flood.queue.state.prices
    under_way = (slots + 1) * flood.longest
    bound = 2 * (prices.input_token * 200 + prices.output_token * under_way) / min(weights)
    before: dict[str, float] | None = None
    for _ in range(100):
        waiting = flood.queue.state.backlog.by_tenant
        for tenant, weight in tenants.items():
            while tenant not in waiting or waiting[tenant].count < BACKLOG:
                flood.ask(tenant, "standard", weight)
        before = before or dict(flood.served)  # from here on everybody has a backlog
        flood.end_one()
        got = [(flood.served.get(t, 0.0) - before.get(t, 0.0)) / weight for t, weight in tenants.items()]
        assert max(got) - min(got) <= bound


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 999), st.integers(2, 8), st.integers(1, 6), st.floats(0.0, 0.5))
def test_2_what_aged_gets_its_turns(seed: int, slots: int, old: int, reserved: float) -> None:
    bands = (
        BandConfig(name="vip", rank=0, reserved_share=reserved, preemptible=False, pauses_lower=True),
        BandConfig(name="standard", rank=1, ageing_s=5.0),
        BandConfig(name="batch", rank=2, ageing_s=8.0),
    )
    flood = Flood(QueueConfig(bands=bands), slots, seed)
    for _ in range(4 * slots):
        flood.ask("v", "vip")
    aged = {flood.ask(f"b{i}", "batch") for i in range(old)}
    for _ in range(14):  # both ageing times pass; every lease that ends meets waiting VIPs
        flood.now_s += 1.0
        flood.ask("v", "vip")
        flood.end_one()
        flood.decide(Tick())
    begun = len(flood.granted)
    for _ in range(AGED_TURN * (old + 1)):
        flood.ask("v", "vip")
        flood.end_one()
    assert aged <= set(flood.granted), f"{old} aged requests in {len(flood.granted) - begun} grants"


def test_the_bounds_are_met_by_something() -> None:
    """Both properties would hold where nobody is granted anything."""
    flood = Flood(QueueConfig(), 4, 1)
    for _ in range(40):
        flood.ask("a", "standard")
        flood.ask("b", "standard")
    for _ in range(40):
        flood.end_one()
    served = [flood.tenant_of[ticket] for ticket in flood.granted]
    assert {"a", "b"} == set(served)
    assert len(served) >= 40
    assert any(one != two for one, two in pairwise(served))
