"""How many nodes the queue's demand is worth: plan(memory, pools, views, models, now_s) -> (memory, nodes). Pure.

Belongs here: from what waits and runs, and what a node holds, to nodes by pool. Must not know: floors, ceilings of
one group, spot that stays short, when to shrink (`pool_plan`); how the queue is asked (`queue_demand`); Ray, AWS.

    nodes = ceil(demand / (room of one node × target_load)), unchanged while within `tolerance` of the size

The rule is that of Kubernetes' HorizontalPodAutoscaler for an average value per pod, with Ray Serve's reading of
demand (`target_ongoing_requests`: what runs and what waits). docs/adr/0030 compares them. The rules, each a property
in tests/properties/capacity/test_demand_properties.py:
 1. Demand is what runs and what waits. Each of streams and tokens of KV cache is compared with its room; the larger
    counts. A band's waiting counts once its oldest request has waited for the band's `patience_s`.
 2. The room of a node is what its engines have learnt to hold; it is believed to grow at once and to shrink slowly,
    and is remembered while there is no engine.
 3. More demand never wants fewer nodes, and no demand wants none.
 4. Bands of VIPs go to pools of tier vip; all else, and what does not fit into these at their largest, goes to spot
    pools. Several pools of a model share its demand in proportion to what they may hold at most. Nodes of a fallback
    pool count as room of the spot pool that they stand in for.
 5. A model that no engine of a pool has served yet is worth one expert group there, or what is there already; until
    a VIP has engines of its own, its demand counts at the spot pools too.
 6. More nodes than a pool has are wanted only as far as they were wanted all through `scale_out_hold_s`: the depth of
    an engine that just began, or the burst of a second, is no reason for machines that take minutes to come.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import msgspec

from services.capacity.nodes import PoolView
from services.config_capacity import PoolConfig, ScaleConfig, Tier


class BandDemand(msgspec.Struct, frozen=True):
    """One band of a model: choices that wait (with the tokens, prompt and answer, that they may need) and that run."""

    name: str
    waiting: int = 0
    waiting_tokens: int = 0
    oldest_age_s: float = 0.0
    running: int = 0


class EngineRoom(msgspec.Struct, frozen=True):
    """One engine: its node, how many streams it has learnt to hold, its KV cache in tokens and the reserved part."""

    node: str = ""
    up: bool = True
    depth: int = 0
    kv_tokens: int = 0
    kv_reserved_tokens: int = 0


class ModelDemand(msgspec.Struct, frozen=True):
    """The queue's snapshot of one model (services/queue/stats.py), as far as it matters here."""

    model: str
    bands: tuple[BandDemand, ...] = ()
    engines: tuple[EngineRoom, ...] = ()


def read(snapshots: object) -> tuple[ModelDemand, ...]:
    """The queue's snapshots as plain data. Raises msgspec.ValidationError."""
    return msgspec.convert(snapshots, tuple[ModelDemand, ...])


@dataclass(frozen=True, slots=True)
class Room:
    """What one node holds of a model: streams, and tokens of KV cache (0: not known)."""

    streams: float
    tokens: float
    learnt_s: float


@dataclass(frozen=True, slots=True)
class Memory:
    """What nodes hold, by model and pool; and what was wanted of late, by time."""

    rooms: Mapping[tuple[str, str], Room] = field(default_factory=lambda: MappingProxyType({}))
    wishes: tuple[tuple[float, Mapping[str, int]], ...] = ()


@dataclass(frozen=True, slots=True)
class Load:
    """Demand of some bands."""

    streams: float = 0.0
    tokens: float = 0.0

    def times(self, share: float) -> Load:
        return Load(self.streams * share, self.tokens * share)

    def plus(self, other: Load) -> Load:
        return Load(self.streams + other.streams, self.tokens + other.tokens)


def plan(
    memory: Memory,
    pools: Mapping[str, PoolConfig],
    views: Mapping[str, PoolView],
    models: Iterable[ModelDemand],
    now_s: float,
    policy: ScaleConfig,
) -> tuple[Memory, dict[str, int]]:
    """Nodes wanted by each seen pool of tier spot and vip. Changes nothing that it is given."""
    models = tuple(models)
    sizes = {
        name: view.desired - len(view.leaving)
        for name, view in views.items()
        if name in pools and pools[name].tier in (Tier.SPOT, Tier.VIP)
    }
    rooms = _learn(memory, pools, views, sizes, models, now_s, policy)
    vip = [name for name in sizes if pools[name].tier is Tier.VIP]
    spot = [name for name in sizes if pools[name].tier is Tier.SPOT]

    wanted = dict.fromkeys(sizes, 0)
    left: dict[str, Load] = {}  # what goes to spot pools, by model
    first: dict[str, Load] = {}
    for model in models:
        first[model.model], left[model.model] = _loads(model, policy)
    shares = {model: _shares(model, vip, pools, rooms) for model in first}
    for model, load in first.items():
        if not shares[model]:
            left[model] = left[model].plus(load)
    for name in vip:
        here = {model: load.times(shares[model].get(name, 0.0)) for model, load in first.items()}
        nodes, fresh = _nodes(name, here, rooms)
        beyond = max(0.0, 1.0 - pools[name].ceiling * policy.target_load / nodes) if nodes else 0.0
        for model, load in here.items():
            left[model] = left[model].plus(load.times(beyond if (model, name) in rooms else 1.0))
        wanted[name] = _whole(nodes, fresh, sizes[name], pools[name], policy)
    shares = {model: _shares(model, spot, pools, rooms) or dict.fromkeys(spot[:1], 1.0) for model in left}
    for name in spot:
        here = {model: load.times(shares[model].get(name, 0.0)) for model, load in left.items()}
        nodes, fresh = _nodes(name, here, rooms)
        wanted[name] = _whole(nodes, fresh, sizes[name], pools[name], policy)
    # The oldest wish that is kept held at the beginning of the window.
    late = [n for n, (at_s, _) in enumerate(memory.wishes) if at_s <= now_s - policy.scale_out_hold_s]
    wishes = (*memory.wishes[late[-1] if late else 0 :], (now_s, MappingProxyType(wanted)))
    held = {name: min(then.get(name, 0) for _, then in wishes) for name in wanted}
    calm = {name: min(nodes, max(sizes[name], held[name])) for name, nodes in wanted.items()}
    return Memory(MappingProxyType(rooms), wishes), calm


def _loads(model: ModelDemand, policy: ScaleConfig) -> tuple[Load, Load]:
    """Rule 1: of the VIPs' bands, and of all others."""
    running = sum(band.running for band in model.bands)
    reserved = sum(engine.kv_reserved_tokens for engine in model.engines)
    vip, rest = Load(), Load()
    for band in model.bands:
        # The queue keeps reservations by engine, not by band: each band's part is taken to be as large as its streams.
        load = Load(band.running, reserved * band.running / running if running else 0.0)
        if band.oldest_age_s >= policy.patience_s.get(band.name, 0.0):
            load = load.plus(Load(band.waiting, band.waiting_tokens))
        if band.name in policy.vip_bands:
            vip = vip.plus(load)
        else:
            rest = rest.plus(load)
    return vip, rest


def _learn(
    memory: Memory,
    pools: Mapping[str, PoolConfig],
    views: Mapping[str, PoolView],
    sizes: Mapping[str, int],
    models: tuple[ModelDemand, ...],
    now_s: float,
    policy: ScaleConfig,
) -> dict[tuple[str, str], Room]:
    """Rule 2, for every model that the queue knows."""
    rooms: dict[tuple[str, str], Room] = {}
    for name in sizes:
        views_here = [view for n in (name, pools[name].fallback) if n and (view := views.get(n))]
        nodes_here = {i for v in views_here for i in (*v.starting, *v.serving, *v.leaving)}
        for model in models:
            known = memory.rooms.get((model.model, name))
            here = [e for e in model.engines if e.node in nodes_here and e.up and e.depth > 0]
            if not here:
                if known is not None:
                    rooms[model.model, name] = known
                continue
            # A rank that spans nodes reports from one of them: count the nodes of whole groups.
            group = pools[name].group_nodes
            nodes = -(-len({e.node for e in here}) // group) * group
            now = Room(sum(e.depth for e in here) / nodes, sum(e.kv_tokens for e in here) / nodes, now_s)
            rooms[model.model, name] = now if known is None else _blend(known, now, policy.room_memory_s)
    return rooms


def _blend(known: Room, now: Room, memory_s: float) -> Room:
    """A depth that falls for a moment (a burst of prompts) must not double the demand for machines."""
    keep = math.exp(-max(0.0, now.learnt_s - known.learnt_s) / memory_s)

    def slowly(before: float, after: float) -> float:
        return max(after, before * keep + after * (1.0 - keep))

    return Room(slowly(known.streams, now.streams), slowly(known.tokens, now.tokens), now.learnt_s)


def _shares(
    model: str,
    candidates: list[str],
    pools: Mapping[str, PoolConfig],
    rooms: Mapping[tuple[str, str], Room],
) -> dict[str, float]:
    """Rule 4: a model's part by pool: of those that serve it; where none does, of those that serve nobody yet."""
    serving = [pool for pool in candidates if (model, pool) in rooms]
    most = {pool: pools[pool].ceiling * rooms[model, pool].streams for pool in serving}
    if total := sum(most.values()):
        return {pool: room / total for pool, room in most.items()}
    taken = {pool for _, pool in rooms}
    even = serving or [pool for pool in candidates if pool not in taken]
    return {pool: 1.0 / len(even) for pool in even}


def _nodes(pool: str, loads: Mapping[str, Load], rooms: Mapping[tuple[str, str], Room]) -> tuple[float, bool]:
    """Nodes that would be full of these models' demand, and whether there is demand of which nothing is known."""
    nodes, fresh = 0.0, False
    for model, load in loads.items():
        room = rooms.get((model, pool))
        if room is not None:
            nodes += max(load.streams / room.streams, load.tokens / room.tokens if room.tokens else 0.0)
        elif load.streams > 0:
            fresh = True
    return nodes, fresh


def _whole(nodes: float, fresh: bool, size: int, pool: PoolConfig, policy: ScaleConfig) -> int:
    """Rules 3 and 5: a size for so many full nodes."""
    exact = nodes / policy.target_load
    wanted = math.ceil(exact - 1e-9)
    if fresh:
        return max(wanted + pool.group_nodes, size)
    near = size > 0 and abs(exact / size - 1.0) <= policy.tolerance
    return size if near else wanted
