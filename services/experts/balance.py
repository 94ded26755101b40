"""Which expert lives on which rank, and which experts live on several. Pure: loads in, a placement out.

Rules: numpy only; knows layers, experts, ranks and slots, no engine. All layers are planned at once, array
operation by array operation, because a plan for 58 layers of 256 experts must cost milliseconds: it runs beside
a serving engine. Words: a *slot* is room for one expert's weights on one rank; a *redundant* expert fills a slot
beyond one per expert; an expert's tokens are spread evenly over its slots (as vLLM's EPLB does).

1. Every expert has at least one slot, every rank the same number of slots.
2. No rank holds an expert twice, if it can be avoided: the second copy would balance nothing.
3. Redundant slots go, one by one, to the expert with the highest load / (slots - h). With h = 0 that minimises the
   busiest slot, but may leave many slots of just over half a rank's load, two of which do not fit; with h = 1/2
   second slots come sooner.
4. Slots are packed heaviest first onto the least loaded rank that has room (Graham's LPT, with capacities), then
   the busiest rank swaps with others as long as a swap makes it less busy. A layer that ends above 3% is tried
   with another h.

DeepSeek's EPLB (github.com/deepseek-ai/EPLB) is rule 3 with h = 0 and the first half of rule 4.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Loads = NDArray[np.float64]

GOAL = 1.05
"""Busiest rank over mean rank that operators are promised (mission A5)."""

_HASTES = (0.5, 0.0, 0.3)
"""Rule 3's h, in the order of trying."""

_GOOD = 1.03
"""A layer above this is tried with the next h."""

_SWAP_GOAL = 1.01
_MAX_SWAPS = 100
_FULL, _TWICE = 1e12, 1e6


@dataclass(frozen=True)
class Placement:
    """`experts[layer, rank, slot]` is the expert that fills the slot."""

    experts: NDArray[np.int64]

    @property
    def num_ranks(self) -> int:
        return self.experts.shape[1]

    def counts(self, num_experts: int) -> NDArray[np.int64]:
        """Slots of each expert, [layers, experts]."""
        layers = self.experts.shape[0]
        flat = self.experts.reshape(layers, -1) + np.arange(layers)[:, None] * num_experts
        return np.bincount(flat.ravel(), minlength=layers * num_experts).reshape(layers, num_experts)

    def rank_loads(self, loads: ArrayLike) -> Loads:
        """What each rank computes under these expert loads [layers, experts]: [layers, ranks]."""
        asked = np.asarray(loads, np.float64)
        per_slot = asked / self.counts(asked.shape[1])
        layers = np.arange(asked.shape[0])[:, None, None]
        return per_slot[layers, self.experts].sum(axis=2)

    def imbalance(self, loads: ArrayLike) -> Loads:
        """Busiest rank over mean rank, per layer; 1.0 is perfect (and what a layer without load has)."""
        ranks = self.rank_loads(loads)
        mean = ranks.mean(axis=1)
        return np.divide(ranks.max(axis=1), mean, out=np.ones_like(mean), where=mean > 0)

    def check_integrity(self, num_experts: int) -> None:
        """Raise ValueError when an expert has no slot, or a slot no known expert."""
        if self.experts.min() < 0 or self.experts.max() >= num_experts:
            raise ValueError("a slot holds an unknown expert")
        if not self.counts(num_experts).all():
            raise ValueError("an expert has no slot")


def round_robin(num_layers: int, num_experts: int, num_ranks: int) -> Placement:
    """Expert e on rank e modulo ranks: what an engine does that measures nothing."""
    one = np.arange(num_experts).reshape(-1, num_ranks).T
    return Placement(np.broadcast_to(one, (num_layers, *one.shape)).copy())


def plan(loads: ArrayLike, num_ranks: int, num_redundant: int = 0) -> Placement:
    """A placement for these loads [layers, experts] (tokens routed to each expert, any unit, not negative).

    Raises ValueError when experts and redundant experts do not fill the ranks evenly."""
    asked = np.asarray(loads, np.float64)
    layers, experts = asked.shape
    if (experts + num_redundant) % num_ranks:
        raise ValueError(
            f"{experts} experts and {num_redundant} redundant ones do not fill {num_ranks} ranks evenly"
        )
    if not np.isfinite(asked).all() or (asked < 0).any():
        raise ValueError("loads must be finite and not negative")
    # Scaled, so that the penalties below mean the same whatever the unit.
    total = asked.sum(axis=1, keepdims=True)
    scaled = np.divide(asked, total, out=np.full_like(asked, 1.0 / experts), where=total > 0)
    placed = np.empty((layers, num_ranks, (experts + num_redundant) // num_ranks), np.int64)
    ratio = np.full(layers, np.inf)
    for haste in _HASTES:
        todo = np.flatnonzero(ratio > _GOOD)
        if not len(todo):
            break
        found, weights = _arrange(scaled[todo], num_ranks, num_redundant, haste)
        found_ratio = _ratio(weights)
        better = found_ratio < ratio[todo]
        placed[todo[better]], ratio[todo[better]] = found[better], found_ratio[better]
    return Placement(placed)


def fewest_redundant(loads: ArrayLike, num_ranks: int, most: int, goal: float = GOAL) -> int | None:
    """The smallest number of redundant experts, up to `most`, that brings every layer within `goal`; None when
    even `most` does not."""
    experts = np.asarray(loads).shape[1]
    first = -experts % num_ranks
    for redundant in range(first, most + 1, num_ranks):
        if (plan(loads, num_ranks, redundant).imbalance(loads) <= goal).all():
            return redundant
    return None


def _replicate(
    loads: Loads, num_ranks: int, num_redundant: int, haste: float
) -> tuple[NDArray[np.int64], Loads]:
    """Rule 3: slots per expert, and the load of each of its slots."""
    counts = np.ones(loads.shape, np.int64)
    rows = np.arange(len(loads))
    for _ in range(num_redundant):
        # An expert that is on every rank already gains nothing by one more.
        chosen = np.where(counts < num_ranks, loads / (counts - haste), -1.0).argmax(axis=1)
        counts[rows, chosen] += 1
    return counts, loads / counts


def _arrange(
    loads: Loads, num_ranks: int, num_redundant: int, haste: float
) -> tuple[NDArray[np.int64], Loads]:
    """Rules 3 and 4: experts and weights of every slot, [layers, ranks, slots]."""
    layers, experts = loads.shape
    counts, per_slot = _replicate(loads, num_ranks, num_redundant, haste)
    ids = np.repeat(np.tile(np.arange(experts), layers), counts.ravel()).reshape(layers, -1)
    weights = np.take_along_axis(per_slot, ids, axis=1)
    order = np.argsort(-weights, axis=1, kind="stable")  # stable: slots of one expert stay neighbours
    placed, slot_weights = _pack(
        np.take_along_axis(ids, order, axis=1), np.take_along_axis(weights, order, axis=1), num_ranks
    )
    _swap(placed, slot_weights)
    return placed, slot_weights


def _ratio(weights: Loads) -> Loads:
    """Busiest over mean rank of slots' weights [layers, ranks, slots]."""
    ranks = weights.sum(axis=2)
    return ranks.max(axis=1) / ranks.mean(axis=1)


def _pack(ids: NDArray[np.int64], weights: Loads, num_ranks: int) -> tuple[NDArray[np.int64], Loads]:
    """Rule 4, first half. Inputs are sorted, heaviest first. Returns experts and weights, [layers, ranks, slots]."""
    layers, num_slots = ids.shape
    each = num_slots // num_ranks
    rows = np.arange(layers)
    placed = np.empty((layers, num_ranks, each), np.int64)
    slot_weights = np.empty((layers, num_ranks, each))
    cost = np.zeros((layers, num_ranks))
    filled = np.zeros((layers, num_ranks), np.int64)
    newest = np.full((layers, num_ranks), -1, np.int64)
    for i in range(num_slots):
        expert, weight = ids[:, i], weights[:, i]
        rank = (cost + _TWICE * (newest == expert[:, None])).argmin(axis=1)
        slot = filled[rows, rank]
        placed[rows, rank, slot] = expert
        slot_weights[rows, rank, slot] = weight
        newest[rows, rank] = expert
        filled[rows, rank] = slot + 1
        cost[rows, rank] += weight + _FULL * (slot + 1 == each)
    return placed, slot_weights


def _swap(placed: NDArray[np.int64], weights: Loads) -> None:
    """Rule 4, second half, in place: the busiest rank of each layer swaps one slot with the least busy one, or, when
    no swap between those two helps, with the next."""
    layers, num_ranks, _ = placed.shape
    if num_ranks == 1:
        return
    tried = np.zeros(layers, np.int64)
    for _ in range(_MAX_SWAPS):
        loads = weights.sum(axis=2)
        ratio = loads.max(axis=1) / loads.mean(axis=1)
        todo = np.flatnonzero((ratio > _SWAP_GOAL) & (tried < num_ranks - 1))
        if not len(todo):
            return
        order = loads[todo].argsort(axis=1)
        busy, calm = order[:, -1], order[np.arange(len(todo)), tried[todo]]
        gap = (loads[todo, busy] - loads[todo, calm])[:, None, None]
        given = weights[todo, busy][:, :, None] - weights[todo, calm][:, None, :]
        same = placed[todo, busy][:, :, None] == placed[todo, calm][:, None, :]
        barred = same.any(axis=2)[:, :, None] | same.any(axis=1)[:, None, :]
        # After the swap the busier of both has gap/2 + |given - gap/2| more than the calm one had.
        worth = np.where(barred, np.inf, np.abs(given - gap / 2)).reshape(len(todo), -1)
        best = worth.argmin(axis=1)
        # `given` must lie strictly between nothing and the whole gap, or the roles are only exchanged.
        helps = worth[np.arange(len(todo)), best] < gap[:, 0, 0] / 2 * (1 - 1e-9)
        tried[todo[~helps]] += 1
        layer, pick = todo[helps], best[helps]
        tried[layer] = 0
        busy, calm = busy[helps], calm[helps]
        i, j = np.divmod(pick, placed.shape[2])
        for array in (placed, weights):
            array[layer, busy, i], array[layer, calm, j] = array[layer, calm, j], array[layer, busy, i].copy()
