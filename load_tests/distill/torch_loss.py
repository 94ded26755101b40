"""How far the student's next-token distribution is from the teacher's: KL over the whole vocabulary.

Rules: final hidden states in, one number and its gradient out. Logits (1.6 GB per 16k tokens in bf16) live for one
piece of the batch only: the gradient is taken on the way forward and waits as [tokens, hidden].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

PieceFn = Callable[[Tensor, Tensor], "tuple[Tensor, Tensor]"]


def piece(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """(sum of KL(teacher ‖ student), its gradient by the student's logits), logits [tokens, vocab]."""
    log_s = F.log_softmax(student.float(), -1)
    log_t = F.log_softmax(teacher.float(), -1)
    p_t = log_t.exp()
    return (p_t * (log_t - log_s)).sum(), (log_s.exp() - p_t).to(student.dtype)


class MeanKL(torch.autograd.Function):
    """Mean KL per token of two final hidden states [tokens, hidden] under one frozen head [vocab, hidden]."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, student: Tensor, teacher: Tensor, head: Tensor, size: int, piece_fn: PieceFn
    ) -> Tensor:
        """Gradient goes to `student` alone."""
        total = torch.zeros((), device=student.device)
        grads: list[Tensor] = []
        for s, t in zip(student.split(size), teacher.split(size), strict=True):
            loss, grad = piece_fn(F.linear(s, head), F.linear(t, head))
            total = total + loss
            grads.append(grad @ head)
        ctx.save_for_backward(torch.cat(grads) / len(student))
        return total / len(student)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        """The kept gradient."""
        (grad,) = ctx.saved_tensors
        return grad * outer[0].to(grad.dtype), None, None, None, None


@torch.no_grad()
def compare(
    student: Tensor, teacher: Tensor, head: Tensor, next_ids: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(teacher's, student's cross entropy on the text, KL), each [tokens], in float32."""
    log_s = F.log_softmax(F.linear(student, head).float(), -1)
    log_t = F.log_softmax(F.linear(teacher, head).float(), -1)
    kl = (log_t.exp() * (log_t - log_s)).sum(-1)
    at = next_ids[:, None]
    return -log_t.gather(1, at)[:, 0], -log_s.gather(1, at)[:, 0], kl
