"""What engines cost, and who used them."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.cli.cost import picture
from services.cli.queue_picture import parse
from services.config import PriceConfig, QueueConfig
from services.config_prices import parse_prices
from services.errors import ConfigError
from services.link.messages import EngineUp, Grant, Preempt, Release
from services.queue.costs import share
from services.queue.events import Effect, FromEngine, FromGateway, Tick, ToGateway
from services.queue.scheduler import Scheduler
from services.queue.view import snapshot
from services.telemetry.prometheus import PrometheusPage
from services.telemetry.queue_metrics import queue_families
from tests.unit.queue.making import NOW_S, asking

PER_S = 3600.0
"""A price per hour that is one per second."""


def priced(
    prices: tuple[PriceConfig, ...], machines: str = "spot", bought: str = "spot", gpus: int = 1
) -> Scheduler:
    """A queue with one engine of 8 slots (it has learnt half of them at first), which may be silent for an hour."""
    scheduler = Scheduler(QueueConfig(prices=prices, engine_silent_s=3600.0))
    up = EngineUp(
        "e0", "x:1", "m", 8, 1_000_000, 16, 4096, machines=machines, capacity_type=bought, accelerators=gpus
    )
    scheduler.decide(FromEngine(up), NOW_S)
    scheduler.decide(Tick(), NOW_S)
    return scheduler


def grants(effects: list[Effect]) -> list[Grant]:
    return [e.message for e in effects if isinstance(e, ToGateway) and isinstance(e.message, Grant)]


def test_a_lease_pays_for_the_slot_that_it_keeps_from_others() -> None:
    scheduler = priced((PriceConfig(name="*", per_hour=PER_S),), gpus=2)
    depth = next(iter(scheduler.state.fleet.engines.values())).model.depth
    (grant,) = grants(scheduler.decide(FromGateway("g", asking(1, tenant="acme")), NOW_S))
    assert grant.cost_per_s == pytest.approx(2.0 / depth)
    scheduler.decide(Tick(), NOW_S + 10.0)
    scheduler.decide(FromGateway("g", Release(1, grant.lease_id, 10, 5, "completed")), NOW_S + 10.0)
    view = snapshot(scheduler.state, "m", NOW_S + 10.0)
    (pool,) = view.pools
    assert (pool.accelerator_s, pool.paid) == (pytest.approx(20.0), pytest.approx(20.0))
    assert pool.used == pytest.approx(20.0 / depth)
    assert [(row.tenant, row.cost) for row in view.tenants] == [("acme", pytest.approx(20.0 / depth))]


def test_a_long_context_pays_for_its_part_of_the_cache() -> None:
    assert share(64, 10_000, 100) == pytest.approx(1 / 64)
    assert share(64, 10_000, 5_000) == pytest.approx(0.5)
    assert share(64, 10_000, 50_000) == 1.0
    assert share(0, 0, 100) == 1.0


def test_without_prices_nothing_is_counted() -> None:
    scheduler = priced(())
    (grant,) = grants(scheduler.decide(FromGateway("g", asking(1)), NOW_S))
    scheduler.decide(Tick(), NOW_S + 10.0)
    assert grant.cost_per_s == 0.0
    assert snapshot(scheduler.state, "m", NOW_S + 10.0).pools == ()


@pytest.mark.parametrize(
    ("machines", "bought", "per_s"),
    [
        ("a", "spot", 1.0), ("a", "on-demand", 2.0), ("b", "spot", 3.0), ("b", "on-demand", 4.0), ("", "", 4.0),
    ],
)  # fmt: skip
def test_the_most_exact_price_holds(machines: str, bought: str, per_s: float) -> None:
    scheduler = priced(parse_prices("a@spot=3600, a=7200, *@spot=10800, *=14400"), machines, bought)
    scheduler.decide(Tick(), NOW_S + 1.0)
    assert snapshot(scheduler.state, "m", NOW_S + 1.0).pools[0].paid == pytest.approx(per_s)


def test_savings_are_beside_the_list_price() -> None:
    scheduler = priced(parse_prices("spot@spot=1200/3600"))
    scheduler.decide(Tick(), NOW_S + 3.0)
    (pool,) = snapshot(scheduler.state, "m", NOW_S + 3.0).pools
    assert (pool.paid, pool.listed) == (pytest.approx(1.0), pytest.approx(3.0))


def test_an_engine_that_left_costs_no_more_and_keeps_its_bill() -> None:
    scheduler = priced((PriceConfig(name="*", per_hour=PER_S),))
    scheduler.decide(Tick(), NOW_S + 5000.0)
    assert not scheduler.state.fleet.engines, "it was silent for too long"
    scheduler.decide(Tick(), NOW_S + 9000.0)
    assert snapshot(scheduler.state, "m", NOW_S + 9000.0).pools[0].paid == pytest.approx(5000.0)


@pytest.mark.parametrize(
    "text", ["spot", "spot=", "spot=cheap", "spot=-1", "=2", "spot=1/x", "spot=nan", "a=1,a=2"]
)
def test_a_price_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="prices"):
        parse_prices(text)


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(["vip", "batch"]), st.floats(0.0, 0.5)), max_size=60
    )
)
@settings(max_examples=60, deadline=None)
def test_every_lease_is_somebodys_bill(asked: list[tuple[str, str, float]]) -> None:
    """Tenants, bands and pools add up to the same, which is what the gateways count; paused work included."""
    scheduler = priced((PriceConfig(name="*", per_hour=PER_S),))
    now_s, told, held = NOW_S, 0.0, dict[int, tuple[Grant, float]]()

    def hear(effects: list[Effect]) -> None:
        nonlocal told
        for effect in effects:
            if not isinstance(effect, ToGateway):
                continue
            message = effect.message
            if isinstance(message, Grant):
                held[message.ticket] = message, now_s
            elif isinstance(message, Preempt) and message.ticket in held:
                give_back(message.ticket, "preempted")

    def give_back(ticket: int, outcome: str) -> None:
        nonlocal told
        grant, since_s = held.pop(ticket)
        told += grant.cost_per_s * (now_s - since_s)
        hear(scheduler.decide(FromGateway("g", Release(ticket, grant.lease_id, 10, 1, outcome)), now_s))

    for ticket, (tenant, band, passed_s) in enumerate(asked, 1):
        now_s += passed_s
        hear(scheduler.decide(FromGateway("g", asking(ticket, band, tenant=tenant)), now_s))
        if len(held) > 2:
            give_back(min(held), "completed")
    while held:
        give_back(min(held), "completed")
    view = snapshot(scheduler.state, "m", now_s)
    assert view.pools[0].used == pytest.approx(told)
    assert sum(row.cost for row in view.tenants) == pytest.approx(told)
    assert sum(counts.cost for counts in scheduler.state.counts) == pytest.approx(told)


def test_the_picture_says_what_nobody_used() -> None:
    scheduler = priced(parse_prices("spot@spot=1200/3600"))
    (grant,) = grants(scheduler.decide(FromGateway("g", asking(1, tenant="acme")), NOW_S))
    scheduler.decide(Tick(), NOW_S + 30.0)
    scheduler.decide(FromGateway("g", Release(1, grant.lease_id, 10, 5, "completed")), NOW_S + 30.0)
    told = [msgspec.to_builtins(snapshot(scheduler.state, "m", NOW_S + 30.0))]
    page = PrometheusPage(lambda: queue_families(told), of_process=False).render().decode()
    said = picture(parse(page))
    assert "10.00 USD" in said
    assert "( 67%)" in said, "saved"
    assert "2.5000 ( 25%)" in said
    assert "7.50" in said
    assert "acme" in said
    assert "EXPERTMESH_PRICES" in picture({})
