"""The sparse model while it learns: the dense weights, permuted, plus b · a; a router; a layer's forward pass.

Rules: one layer as a pure function of tensors (compiled once, used by all layers); the losses that a layer can tell
by itself. All experts are computed and those not chosen multiplied by `keep`, which falls from 1 to 0 during
training: every expert is heard at first, then only the chosen ones, as in service.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from load_tests.distill.torch_dense import Dense, Layer, Shape, attention, rms
from services.experts.sparse_split import SparsePlan

RANKS = {"q": 16, "k": 16, "v": 16, "o": 16, "gate": 64, "up": 64, "down": 64}


class Trained(NamedTuple):
    """One layer's trained tensors, float32."""

    norm1: Tensor
    norm2: Tensor
    router: Tensor
    q_a: Tensor
    q_b: Tensor
    k_a: Tensor
    k_b: Tensor
    v_a: Tensor
    v_b: Tensor
    o_a: Tensor
    o_b: Tensor
    gate_a: Tensor
    gate_b: Tensor
    up_a: Tensor
    up_b: Tensor
    down_a: Tensor
    down_b: Tensor


class Said(NamedTuple):
    """What a layer says: the residual stream, its distance from the teacher's, the router's error, experts' loads."""

    x: Tensor
    distance: Tensor
    miss: Tensor
    load: Tensor


StudentLayer = Callable[[Tensor, Layer, Trained, Tensor, Tensor, "tuple[Tensor, Tensor]"], Said]


def permuted(layer: Layer, order: Tensor) -> Layer:
    """The same FFN with its neurons in another order."""
    return layer._replace(gate=layer.gate[order], up=layer.up[order], down=layer.down[:, order])


def fresh(layer: Layer, router: Tensor, ranks: dict[str, int], generator: torch.Generator) -> Trained:
    """Corrections of zero: a random, b zero."""
    device = layer.q.device
    tensors: dict[str, Tensor] = {
        "norm1": layer.norm1.clone(), "norm2": layer.norm2.clone(), "router": router.clone(),
    }  # fmt: skip
    for short, rank in ranks.items():
        out, into = getattr(layer, short).shape
        a = torch.randn(rank, into, generator=generator, device=device) * into**-0.5
        tensors |= {f"{short}_a": a, f"{short}_b": torch.zeros(out, rank, device=device)}
    return Trained(**{name: t.float().requires_grad_() for name, t in tensors.items()})


def fixed(base: Tensor, b: Tensor, a: Tensor) -> Tensor:
    """A weight as it will be served, in the base's type."""
    return (base.float() + b @ a).to(base.dtype)


def gates(logits: Tensor, plan: SparsePlan, keep: Tensor) -> tuple[Tensor, Tensor]:
    """(each expert's weight, chosen as 0/1), both [..., experts]."""
    scores = logits.sigmoid()
    chosen = torch.zeros_like(scores).scatter(-1, scores.topk(plan.chosen, dim=-1).indices, 1.0)
    return plan.scale * scores * (chosen + keep * (1 - chosen)), chosen


def make_layer(shape: Shape, plan: SparsePlan) -> StudentLayer:
    """The layer's function for this model and plan."""

    def student_layer(
        x: Tensor, w: Layer, t: Trained, teacher: Tensor, keep: Tensor, rope: tuple[Tensor, Tensor]
    ) -> Said:
        q, k = fixed(w.q, t.q_b, t.q_a), fixed(w.k, t.k_b, t.k_a)
        v, o = fixed(w.v, t.v_b, t.v_a), fixed(w.o, t.o_b, t.o_a)
        x = x + attention(rms(x, t.norm1, shape.eps).to(w.q.dtype), q, k, v, o, shape, rope).float()
        normed = rms(x, t.norm2, shape.eps)
        h = normed.to(w.gate.dtype)
        logits = F.linear(normed, t.router)
        weights, chosen = gates(logits, plan, keep)
        said = F.silu(F.linear(h, fixed(w.gate, t.gate_b, t.gate_a)))
        said = said * F.linear(h, fixed(w.up, t.up_b, t.up_a))
        shared = said[..., : plan.num_shared]
        routed = said[..., plan.num_shared :].unflatten(-1, (plan.num_experts, -1))
        weighted = (routed * weights.unsqueeze(-1).to(h.dtype)).flatten(-2)
        x = x + F.linear(torch.cat((shared, weighted), -1), fixed(w.down, t.down_b, t.down_a)).float()

        lengths = w.down[:, plan.num_shared :].float().norm(dim=0).view(plan.num_experts, -1)
        energy = (routed.detach().float() * lengths).square().sum(-1)
        best = torch.zeros_like(energy).scatter(-1, energy.topk(plan.chosen, dim=-1).indices, 1.0)
        miss = F.binary_cross_entropy_with_logits(logits, best)
        return Said(x, distance(x, teacher), miss, chosen.flatten(0, -2).mean(0))

    return student_layer


def distance(x: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared distance of two residual streams, each token's brought to unit size."""

    def unit(y: Tensor) -> Tensor:
        return y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-6)

    return (unit(x) - unit(teacher.float())).square().mean()


def forward(
    model: Dense, base: list[Layer], trained: list[Trained], norm: Tensor, ids: Tensor, teacher: list[Tensor] | None,
    keep: Tensor, layer_fn: StudentLayer, rope: tuple[Tensor, Tensor],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """(final normed hidden state, mean distance, mean miss, loads [layers, experts])."""
    x = F.embedding(ids, model.embed).float()
    distances: list[Tensor] = []
    misses: list[Tensor] = []
    loads: list[Tensor] = []
    for i, (w, t) in enumerate(zip(base, trained, strict=True)):
        said = layer_fn(x, w, t, x.detach() if teacher is None else teacher[i], keep, rope)
        x = said.x
        distances.append(said.distance)
        misses.append(said.miss)
        loads.append(said.load)
    last = rms(x, norm, model.shape.eps).to(model.embed.dtype)
    return last, torch.stack(distances).mean(), torch.stack(misses).mean(), torch.stack(loads).detach()
