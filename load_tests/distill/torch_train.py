"""The student learns: warm router, then distillation for a number of steps that fits the time given.

Rules: tensors and numbers in, trained tensors out; what is printed goes through `say`. The number of steps is fixed
after the first ones were timed, so that a run can be repeated with `num_steps`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from load_tests.distill.torch_dense import Dense, Layer, final, hidden_states, rope_table
from load_tests.distill.torch_loss import compare
from load_tests.distill.torch_step import Recipe, Step, Student
from load_tests.distill.torch_student import forward, fresh, make_layer
from load_tests.distill.torch_team import Team
from services.experts.sparse_split import SparsePlan

Say = Callable[[str], None]
TIMED_FROM, TIMED_TO = 20, 60
"""Steps between which a step is timed: after compiling and capturing."""


def new_student(
    dense: Dense, plan: SparsePlan, orders: list[Tensor], routers: list[Tensor], base: list[Layer],
    ranks: dict[str, int], generator: torch.Generator,
) -> Student:  # fmt: skip
    """The dense model, cut: corrections of zero."""
    trained = [fresh(w, r, ranks, generator) for w, r in zip(base, routers, strict=True)]
    return Student(plan, dense, base, trained, dense.norm.clone().requires_grad_(), orders)


def fit_routers(h: Tensor, chosen: Tensor, steps: int = 200) -> Tensor:
    """Linear routers [layers, experts, hidden] that find the `chosen` [layers, tokens, experts] from FFN inputs
    [layers, tokens, hidden]."""
    gram = torch.stack([one.float().T @ one.float() for one in h])
    gram.diagonal(dim1=1, dim2=2).add_(1e-3 * gram.diagonal(dim1=1, dim2=2).mean(1, keepdim=True) + 1e-6)
    right = torch.stack(
        [one.float().T @ ((best.float() - 0.5) * 4) for one, best in zip(h, chosen, strict=True)]
    )
    weight = torch.linalg.solve(gram, right).transpose(1, 2).contiguous().requires_grad_()
    optimizer = torch.optim.Adam([weight], lr=3e-3)
    size = min(4096, h.shape[1])
    for step in range(steps):
        start = step * size % (h.shape[1] - size + 1)
        inputs, target = h[:, start : start + size].float(), chosen[:, start : start + size].float()
        optimizer.param_groups[0]["lr"] = 3e-3 * (1 - step / steps)
        optimizer.zero_grad()
        loss = F.binary_cross_entropy_with_logits(inputs @ weight.transpose(1, 2), target, reduction="none")
        loss.mean((1, 2)).sum().backward()
        optimizer.step()
    return weight.detach()


def distil(
    student: Student, texts: Tensor, recipe: Recipe, team: Team, say: Say, save: Callable[[], None]
) -> None:
    """Train in place on texts [number, length], each member on its own. `save` is called now and then."""
    began_s = time.monotonic()
    step = Step(student, texts.shape[1], recipe, texts.device, team.mean)
    picks = torch.Generator(device=texts.device).manual_seed(7 + team.rank)
    order = torch.empty(0, dtype=torch.long, device=texts.device)
    num_steps = recipe.num_steps or 10**9
    timed_s = saved_s = told_s = began_s
    while student.steps < num_steps:
        if len(order) < recipe.batch:
            order = torch.cat((order, torch.randperm(len(texts), generator=picks, device=texts.device)))
        ids, order = texts[order[: recipe.batch]], order[recipe.batch :]
        progress = student.steps / num_steps
        rate = min(1.0, (student.steps + 1) / recipe.warmup) * (
            0.02 + 0.49 * (1 + math.cos(math.pi * progress))
        )
        keep = max(0.0, 1 - progress / recipe.anneal) if recipe.anneal else 0.0
        step(ids, keep=keep, progress=progress, rate=rate)
        student.steps += 1
        if student.steps in (TIMED_FROM, TIMED_TO):
            step.numbers()  # waits for the device
            now_s = time.monotonic()
            if student.steps == TIMED_FROM:
                timed_s = now_s
                say(f"step {student.steps} after {now_s - began_s:.0f} s")
            else:
                per_step = (now_s - timed_s) / (TIMED_TO - TIMED_FROM)
                left_s = recipe.seconds - (now_s - began_s)
                num_steps = recipe.num_steps or team.agree(TIMED_TO + max(0, int(left_s / per_step)))
                say(f"{per_step * 1e3:.0f} ms a step: {num_steps} steps of {ids.numel()} tokens")
        if student.steps % 100 == 0 or student.steps == num_steps:
            student.history.append({"step": student.steps, **step.numbers()})
            if time.monotonic() - told_s > 8 or student.steps == num_steps:
                told_s = time.monotonic()
                say(" ".join(f"{name} {value:.4g}" for name, value in student.history[-1].items()))
        if time.monotonic() - saved_s > 60:
            saved_s = time.monotonic()
            save()


@torch.no_grad()
def judge(student: Student, dense: Dense, texts: Tensor, begin: Tensor, batch: int = 8) -> dict[str, object]:
    """On texts [number, length], counting tokens from `begin` [number] on: cross entropies, KL, loads."""
    layer_fn = make_layer(dense.shape, student.plan)
    rope = rope_table(dense.shape, texts.shape[1], str(texts.device))
    keep = torch.zeros((), device=texts.device)
    sums, loads = torch.zeros(4, device=texts.device, dtype=torch.float64), []
    for ids, start in zip(texts.split(batch), begin.split(batch), strict=True):
        *_, (x, _) = hidden_states(dense, ids)
        last, _, _, load = forward(
            dense, student.base, student.trained, student.norm, ids, None, keep, layer_fn, rope
        )
        counted = (torch.arange(1, ids.shape[1], device=ids.device) >= start[:, None]).flatten().double()
        student_last, teacher_last = (one[:, :-1].flatten(0, 1) for one in (last, final(dense, x)))
        told = compare(student_last, teacher_last, dense.embed, ids[:, 1:].flatten())
        sums += torch.stack([*((one.double() * counted).sum() for one in told), counted.sum()])
        loads.append(load)
    teacher, learner, kl = (float(value / sums[3]) for value in sums[:3])
    return {
        "tokens": int(sums[3]),
        "dense_perplexity": math.exp(teacher),
        "sparse_perplexity": math.exp(learner),
        "ratio": math.exp(learner - teacher),
        "kl": kl,
        "loads": torch.stack(loads).mean(0).cpu().tolist(),
    }
