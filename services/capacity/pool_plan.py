"""How many nodes each pool should have: plan(memory, views, demand, now_s) -> (memory, actions). Pure.

Belongs here: floors, whole groups, spot that stays short, and when to shrink. Must not know: how demand was
measured (`demand`), how a node is drained (`drain`), AWS.

The rules, each a property in tests/properties/capacity:
 1. No pool is set below its floor or above its ceiling, and always to whole expert groups.
 2. Growing is at once. Spot that stays short of its target for `spot_patience_s` raises its fallback pool by
    what is missing; the fallback is given back when spot has been whole for `scale_in_hold_s`.
 3. Shrinking never sets a smaller size: it names nodes, which are drained and then terminated with decrement.
 4. A pool shrinks only to the most that it needed within `scale_in_hold_s`, once it has been watched for so long, a
    few nodes at a time (`max_drains_at_once`, or one whole expert group), and never the head.
 5. The same views and demand again give no further action.
 6. A pool that nobody speaks for keeps the size that it has; a fallback pool has what it lends.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from services.capacity.nodes import PoolView
from services.config_capacity import PoolConfig, ScaleConfig, Tier


@dataclass(frozen=True, slots=True)
class SetDesired:
    """Raise the group to `size` nodes."""

    asg: str
    size: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Drain this node, then terminate it with decrement."""

    instance_id: str


Action = SetDesired | GiveUp


@dataclass(frozen=True, slots=True)
class Need:
    """So many nodes were needed until then."""

    until_s: float
    nodes: int


@dataclass(frozen=True, slots=True)
class PoolMemory:
    """What must be remembered of a pool between two looks; times on the caller's clock. `needs` falls: what was
    followed by a larger need does not matter."""

    short_since_s: float | None = None
    whole_since_s: float | None = None
    watched_since_s: float | None = None
    needs: tuple[Need, ...] = ()
    lent: int = 0  # nodes that the fallback runs in this pool's place


@dataclass(frozen=True, slots=True)
class Memory:
    pools: Mapping[str, PoolMemory] = field(default_factory=lambda: MappingProxyType({}))


def plan(
    memory: Memory,
    pools: Mapping[str, PoolConfig],
    views: Mapping[str, PoolView],
    demand: Mapping[str, int],
    now_s: float,
    policy: ScaleConfig,
) -> tuple[Memory, tuple[Action, ...]]:
    """One look at all pools. `demand`: nodes wanted by pool."""
    remembered = {name: memory.pools.get(name, PoolMemory()) for name in pools}
    targets = {name: _fit(pool, _wanted(name, pool, views, demand)) for name, pool in pools.items()}

    for name, pool in pools.items():
        if pool.tier is Tier.SPOT and pool.fallback is not None and name in views:
            kept = _lend(remembered[name], targets[name], views[name], now_s, policy)
            remembered[name] = kept
            fallback = pools[pool.fallback]
            targets[pool.fallback] = _fit(fallback, targets[pool.fallback] + kept.lent)

    actions: list[Action] = []
    for name, pool in pools.items():
        if name not in views:
            continue  # not seen this time: nothing is known, nothing is done
        kept, more = _resize(remembered[name], pool, views[name], targets[name], now_s, policy)
        remembered[name] = kept
        actions += more
    return Memory(MappingProxyType(remembered)), tuple(actions)


def _wanted(name: str, pool: PoolConfig, views: Mapping[str, PoolView], demand: Mapping[str, int]) -> int:
    """Rule 6: nodes, before floors and groups."""
    if name in demand or name not in views or pool.tier is Tier.FALLBACK:
        return demand.get(name, 0)
    return views[name].desired - len(views[name].leaving)


def _fit(pool: PoolConfig, wanted: int) -> int:
    """Whole groups, rounded up, between floor and ceiling."""
    groups = -(-max(0, wanted) // pool.group_nodes)
    return min(max(groups * pool.group_nodes, pool.floor), pool.ceiling)


def _lend(kept: PoolMemory, target: int, view: PoolView, now_s: float, policy: ScaleConfig) -> PoolMemory:
    """Rule 2: how many nodes the fallback runs for this spot pool."""
    missing = max(0, target - len(view.serving))
    if missing > 0:
        since_s = now_s if kept.short_since_s is None else kept.short_since_s
        lent = max(kept.lent, missing) if now_s - since_s >= policy.spot_patience_s else kept.lent
        return replace(kept, short_since_s=since_s, whole_since_s=None, lent=lent)
    since_s = now_s if kept.whole_since_s is None else kept.whole_since_s
    lent = 0 if now_s - since_s >= policy.scale_in_hold_s else kept.lent
    return replace(kept, short_since_s=None, whole_since_s=since_s, lent=lent)


def _resize(
    kept: PoolMemory, pool: PoolConfig, view: PoolView, target: int, now_s: float, policy: ScaleConfig
) -> tuple[PoolMemory, list[Action]]:
    # Nodes that are on their way out still count in the group's size until they are terminated with
    # decrement: wanting more means wanting more beside them.
    staying = view.desired - len(view.leaving)
    since_s = now_s if kept.watched_since_s is None else kept.watched_since_s
    needs = _window(kept.needs, target, now_s, policy.scale_in_hold_s)
    kept = replace(kept, watched_since_s=since_s, needs=needs)
    if target > staying:
        size = min(target + len(view.leaving), pool.ceiling)
        return kept, [SetDesired(view.asg, size)] if size > view.desired else []
    surplus = staying - needs[0].nodes
    if surplus <= 0 or pool.tier is Tier.HEAD or now_s - since_s < policy.scale_in_hold_s:
        return kept, []
    at_once = max(policy.max_drains_at_once // pool.group_nodes, 1) * pool.group_nodes
    room = at_once - len(view.leaving)
    count = min(surplus, room) // pool.group_nodes * pool.group_nodes
    if count <= 0:
        return kept, []
    # The newest first: they hold the least warmed cache. Groups go whole: launch order keeps them together.
    victims = view.serving[-count:]
    return kept, [GiveUp(instance_id) for instance_id in victims] if len(victims) == count else []


def _window(needs: tuple[Need, ...], target: int, now_s: float, hold_s: float) -> tuple[Need, ...]:
    """Rule 4: the needs of the last `hold_s`, the largest first. The last one said held until now."""
    if needs:
        needs = (*needs[:-1], replace(needs[-1], until_s=now_s))
    return (*(n for n in needs if n.nodes > target and now_s - n.until_s < hold_s), Need(now_s, target))
