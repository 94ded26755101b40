"""Which neurons are shared, and which belong together in an expert.

Rules: activations in, permutations out; knows no model. The energy of neuron n for a token is (a_n · |d_n|)²: its
activation times the length of its column of the down projection, i.e. what dropping it alone would cost.

1. Shared: the neurons that are most often among a token's strongest quarter.
2. Experts: start with neurons sorted by the first principal direction of their co-activation, cut into equal parts.
   Then in turns (a) every token chooses its k experts of most energy, (b) neurons are dealt out anew, so that the
   energy that the choices of (a) keep is largest, every expert getting as many as before. (a) and (b) never lower
   the kept energy but for the greedy deal in (b); the best deal seen is returned.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from services.experts.sparse_split import SparsePlan


def shared_first(energy: Tensor, num_shared: int) -> tuple[Tensor, Tensor]:
    """(shared neurons, the others) by how often each is in its token's strongest quarter. energy [tokens, width]."""
    quarter = energy.topk(energy.shape[1] // 4, dim=1).indices
    often = torch.bincount(quarter.flatten(), minlength=energy.shape[1])
    order = often.argsort(descending=True, stable=True)
    return order[:num_shared].sort().values, order[num_shared:].sort().values


def deal(affinity: NDArray[np.float32], capacity: int) -> NDArray[np.int64]:
    """Give each row (neuron) one column (expert), `capacity` rows each. affinity [rows, columns] → owner [rows].

    Greedy, in rounds: every free row asks for its best column that has room; a column takes those who would lose
    most elsewhere.
    """
    rows, columns = affinity.shape
    owner = np.full(rows, -1)
    room = np.full(columns, capacity)
    left = affinity.copy()
    while (free := np.flatnonzero(owner < 0)).size:
        left[:, room == 0] = -np.inf
        asked = left[free]
        wish = asked.argmax(1)
        first = asked[np.arange(free.size), wish]
        asked[np.arange(free.size), wish] = -np.inf
        order = np.argsort(-(first - asked.max(1)), kind="stable")
        for column in np.unique(wish):
            taken = order[wish[order] == column][: room[column]]
            owner[free[taken]] = column
            room[column] -= taken.size
    return owner


def choose(energy: Tensor, owner: Tensor, plan: SparsePlan) -> tuple[Tensor, Tensor]:
    """(choices [tokens, experts] as 0/1, energy kept). energy [tokens, routed neurons]."""
    by_expert = torch.zeros(energy.shape[0], plan.num_experts, device=energy.device)
    by_expert.index_add_(1, owner, energy)
    top = by_expert.topk(plan.chosen, dim=1)
    return torch.zeros_like(by_expert).scatter_(1, top.indices, 1.0), top.values.sum()


def experts(energy: Tensor, plan: SparsePlan, turns: int = 12) -> tuple[Tensor, float]:
    """(owner [routed neurons], share of the routed energy that the best k experts keep)."""
    total = energy.sum()
    lengths = energy.sqrt()
    unit = lengths - lengths.mean(0)
    unit = unit / unit.norm(dim=0).clamp(min=1e-12)
    _, _, directions = torch.svd_lowrank(unit, q=4, niter=4)
    owner = torch.empty(energy.shape[1], dtype=torch.long, device=energy.device)
    owner[directions[:, 0].argsort()] = (
        torch.arange(energy.shape[1], device=energy.device) // plan.expert_width
    )
    choices, kept = choose(energy, owner, plan)
    best, most = owner, kept
    for _ in range(turns):
        # Against the mean: an expert that nearly everyone chooses would otherwise draw every strong neuron.
        affinity = energy.T @ (choices - choices.mean(0))
        owner = torch.from_numpy(deal(affinity.cpu().numpy(), plan.expert_width)).to(energy.device)
        choices, kept = choose(energy, owner, plan)
        if kept > most:
            best, most = owner, kept
    return best, float(most / total)


def permutation(energy: Tensor, plan: SparsePlan) -> tuple[Tensor, float]:
    """Neurons in their new order (shared, expert 0, expert 1, …), and the share of routed energy kept."""
    shared, routed = shared_first(energy, plan.num_shared)
    owner, kept = experts(energy[:, routed], plan)
    return torch.cat((shared, routed[owner.argsort(stable=True)])), kept
