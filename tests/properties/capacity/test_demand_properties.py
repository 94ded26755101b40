"""Invariants of `demand`, alone and with `pool_plan` behind it (the numbers are those of the files' rules).

demand 1  What waits counts only from the band's patience on; the larger of streams and tokens decides.
demand 2  A room that shrinks for a moment changes the nodes wanted by less than the moment's share of the memory.
demand 3  More demand never wants fewer nodes; no demand wants none; within tolerance the size stays.
demand 4  VIPs' demand that fits the VIP pools wants no spot node, other bands' never a VIP node; nothing is lost.
demand 5  A model without engines wants one group, and asking again wants no more.
demand 6  What exceeds the size was wanted all through the hold; a wish below the size is not held.
both      Whatever demand does, sizes stay between floor and ceiling (pool_plan 1); nothing is given up below the most
          that was needed within the hold (4: no flapping); without demand every pool ends at its floor.
"""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from services.capacity.demand import BandDemand, EngineRoom, Memory, ModelDemand, plan
from services.capacity.nodes import PoolView
from services.capacity.pool_plan import GiveUp, SetDesired
from services.capacity.pool_plan import Memory as PoolsMemory
from services.capacity.pool_plan import plan as size
from services.config_capacity import PoolConfig, ScaleConfig, Tier

POOLS = {
    "spot": PoolConfig(
        asg="s",
        tier=Tier.SPOT,
        min_size=1,
        max_size=20,
        on_demand_base=2,
        on_demand_percentage=0,
        fallback="fall",
    ),
    "fall": PoolConfig(asg="f", tier=Tier.FALLBACK, min_size=0, max_size=6),
    "vip": PoolConfig(asg="v", tier=Tier.VIP, min_size=0, max_size=4, group_nodes=2),
}
POLICY = ScaleConfig()
DEPTH, KV = 10, 1000


def views_of(spot: int, vip: int = 2, fall: int = 0) -> dict[str, PoolView]:
    def view(asg: str, nodes: int) -> PoolView:
        return PoolView(asg, nodes, (), tuple(f"{asg}{n}" for n in range(nodes)))

    return {"spot": view("s", spot), "vip": view("v", vip), "fall": view("f", fall)}


def engines_on(views: dict[str, PoolView], depth: int = DEPTH) -> tuple[EngineRoom, ...]:
    return tuple(EngineRoom(i, True, depth, KV, 0) for view in views.values() for i in view.serving)


def demand_of(
    engines: tuple[EngineRoom, ...],
    standard: int = 0,
    vip: int = 0,
    batch: int = 0,
    age_s: float = 100.0,
    tokens: int = 1,
) -> tuple[ModelDemand, ...]:
    waiting = {"vip": vip, "standard": standard, "batch": batch}
    bands = (BandDemand(name, count, count * tokens, age_s) for name, count in waiting.items())
    return (ModelDemand("m", tuple(bands), engines),)


def wanted(
    models: tuple[ModelDemand, ...],
    views: dict[str, PoolView],
    memory: Memory | None = None,
    now_s: float = 0.0,
) -> dict[str, int]:
    return plan(memory or Memory(), POOLS, views, models, now_s, POLICY)[1]


counts = st.integers(0, 300)


@settings(max_examples=40)
@given(
    counts,
    counts,
    counts,
    st.integers(0, 200),
    st.integers(1, 300),
    st.integers(0, 12),
    st.sampled_from([0, 2, 4]),
)
def test_more_demand_never_wants_fewer(
    standard: int, vip: int, batch: int, more: int, tokens: int, spot: int, vips: int
) -> None:
    views = views_of(spot, vips)
    engines = engines_on(views)
    before = wanted(demand_of(engines, standard, vip, batch, tokens=tokens), views)
    for bigger in (
        (standard + more, vip, batch),
        (standard, vip + more, batch),
        (standard, vip, batch + more),
    ):
        after = wanted(demand_of(engines, *bigger, tokens=tokens), views)
        assert all(after[pool] >= before[pool] for pool in before)  # 3
    assert set(wanted(demand_of(engines), views).values()) == {0}  # 3


@settings(max_examples=40)
@given(st.integers(1, 20), st.floats(0.905, 1.095))
def test_within_tolerance_the_size_stays(spot: int, near: float) -> None:
    views = views_of(spot)
    exact = int(spot * DEPTH * POLICY.target_load * 1000 * near)
    fine = tuple(replace_room(e, 1000 * DEPTH) for e in engines_on(views))
    assert wanted(demand_of(fine, exact), views)["spot"] == spot  # 3


def replace_room(engine: EngineRoom, depth: int) -> EngineRoom:
    return EngineRoom(engine.node, engine.up, depth, 0, 0)


@settings(max_examples=40)
@given(counts, st.floats(0, 59.9, allow_nan=False))
def test_batch_waits_before_it_asks(batch: int, age_s: float) -> None:
    views = views_of(2)
    engines = engines_on(views)
    assert wanted(demand_of(engines, batch=batch, age_s=age_s), views)["spot"] == 0  # 1
    assert (
        wanted(demand_of(engines, standard=batch, age_s=age_s), views)["spot"]
        == wanted(demand_of(engines, batch=batch, age_s=60.0), views)["spot"]
    )  # 1: then it asks as everybody


@settings(max_examples=40)
@given(st.integers(1, 100), st.integers(1, 400))
def test_the_scarcer_of_streams_and_tokens_decides(standard: int, tokens: int) -> None:
    views = views_of(0, vip=0, fall=1)
    engines = engines_on(views)
    both = wanted(demand_of(engines, standard, tokens=tokens), views)["spot"]
    streams = wanted(demand_of(engines, standard, tokens=0), views)["spot"]
    needed = standard * tokens / (KV * POLICY.target_load)
    assert (
        both == max(streams, -int(-needed // 1) + (1 if needed % 1 > 1e-9 else 0)) or abs(both - needed) < 1
    )  # 1


@settings(max_examples=40)
@given(st.integers(1, 200), st.integers(1, DEPTH), st.floats(0, 5, allow_nan=False))
def test_a_room_that_shrinks_for_a_moment_is_not_believed(standard: int, low: int, gap_s: float) -> None:
    views = views_of(5)
    memory, _ = plan(Memory(), POOLS, views, demand_of(engines_on(views), standard), 0.0, POLICY)
    after = wanted(demand_of(engines_on(views, low), standard), views, memory, gap_s)["spot"]
    # In five seconds of sixty, at most a twelfth of the old room is forgotten.
    assert after <= max(5, -(-standard // (DEPTH * POLICY.target_load * 0.9)) + 1)  # 2


@settings(max_examples=40)
@given(counts, counts)
def test_whose_demand_goes_where(standard: int, vip: int) -> None:
    views = views_of(3, 2)
    engines = engines_on(views)
    got = wanted(demand_of(engines, standard, vip), views)
    alone = wanted(demand_of(engines, standard), views)
    assert alone["vip"] == 0  # 4
    if vip <= POOLS["vip"].ceiling * DEPTH * POLICY.target_load:
        assert got["spot"] == alone["spot"]  # 4
    full = POLICY.target_load * DEPTH * (1 + POLICY.tolerance)
    assert got["spot"] * full + POOLS["vip"].ceiling * full >= standard + (vip if vip else 0) or vip == 0  # 4


@settings(max_examples=40)
@given(st.integers(1, 300), st.integers(0, 10))
def test_an_unknown_model_wants_one_group(standard: int, there: int) -> None:
    views = views_of(there, 0)
    first = wanted(demand_of((), standard), views)["spot"]
    assert first == max(1, there)  # 5
    assert wanted(demand_of((), standard), views_of(first, 0))["spot"] == first  # 5


def test_vips_count_at_spot_until_they_have_engines() -> None:
    views = views_of(2, 0)
    got = wanted(demand_of(engines_on(views), vip=35), views)
    assert got["vip"] == 2 and got["spot"] == 5  # 5


class Site:
    """Groups that do at once what is asked, drains that end at once, and an engine on every node."""

    def __init__(self) -> None:
        self.views = views_of(2, 0)
        self.memory, self.pools, self.now_s = Memory(), PoolsMemory(), 0.0
        self.policy = POLICY.model_copy(update={"max_drains_at_once": 3})
        self.born = 100

    def round(self, standard: int, vip: int, gap_s: float) -> list[GiveUp]:
        self.now_s += gap_s
        models = demand_of(engines_on(self.views), standard, vip)
        self.memory, nodes = plan(self.memory, POOLS, self.views, models, self.now_s, self.policy)
        self.pools, actions = size(self.pools, POOLS, self.views, nodes, self.now_s, self.policy)
        for name, view in self.views.items():
            for action in actions:
                if isinstance(action, SetDesired) and action.asg == view.asg:
                    self.born += 1
                    new = tuple(f"{view.asg}{self.born}-{n}" for n in range(action.size - view.desired))
                    view = replace(view, desired=action.size, serving=(*view.serving, *new))
                elif isinstance(action, GiveUp) and action.instance_id in view.serving:
                    rest = tuple(i for i in view.serving if i != action.instance_id)
                    view = replace(view, desired=view.desired - 1, serving=rest)
            self.views[name] = view
        return [action for action in actions if isinstance(action, GiveUp)]


rounds = st.lists(st.tuples(counts, st.integers(0, 60), st.sampled_from([5.0, 60.0, 300.0])), max_size=25)


@settings(max_examples=40)
@given(rounds)
def test_sizes_follow_demand_without_flapping(history: list[tuple[int, int, float]]) -> None:
    site = Site()
    hold_s = site.policy.scale_in_hold_s
    sizes: list[tuple[float, dict[str, int]]] = []
    for standard, vip, gap_s in history:
        before = {name: view.desired for name, view in site.views.items()}
        site.round(standard, vip, gap_s)
        for name, view in site.views.items():
            pool = POOLS[name]
            assert pool.floor <= view.desired <= pool.ceiling  # both
            grew = [then[name] for at_s, then in sizes if site.now_s - at_s < hold_s and then[name] > 0]
            if view.desired < before[name] and grew:
                assert view.desired >= max(grew)  # both: never below what it had to grow to within the hold
        sizes.append(
            (site.now_s, {n: v.desired if v.desired > before[n] else 0 for n, v in site.views.items()})
        )
    for _ in range(20):
        site.round(0, 0, hold_s)
    assert {name: view.desired for name, view in site.views.items()} == {
        name: pool.floor for name, pool in POOLS.items()
    }  # both


@settings(max_examples=40)
@given(
    st.lists(st.tuples(counts, st.floats(0.1, 12, allow_nan=False)), min_size=2, max_size=12),
    st.integers(0, 9),
)
def test_growth_was_wanted_all_through_the_hold(history: list[tuple[int, float]], there: int) -> None:
    views = views_of(there, 0)
    engines = engines_on(views_of(1))  # what a node holds is known throughout
    memory, now_s, raw = Memory(), 0.0, list[tuple[float, int]]()
    for standard, gap_s in history:
        now_s += gap_s
        models = demand_of(engines, standard)
        raw.append((now_s, wanted(models, views)["spot"]))
        memory, got = plan(memory, POOLS, views, models, now_s, POLICY)
        within = [nodes for at_s, nodes in raw if at_s > now_s - POLICY.scale_out_hold_s]
        assert got["spot"] <= max(there, min(within))  # 6
        assert got["spot"] == raw[-1][1] or got["spot"] >= there  # 6: only growth is held
        assert len(memory.wishes) <= len(within) + 1
