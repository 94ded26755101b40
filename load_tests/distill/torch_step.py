"""One step of the distillation: teacher, student, loss, gradients, optimizer; on a GPU one captured graph.

Rules: what changes from step to step (texts, rates, how loud unchosen experts are) are tensors that are filled
before the step, since a captured graph sees nothing else. A step has some 3,000 kernels; launched one by one they
take longer than they run.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from load_tests.distill.torch_dense import Dense, Layer, dense_layer, final, hidden_states, rope_table
from load_tests.distill.torch_loss import MeanKL, piece
from load_tests.distill.torch_student import Trained, forward, make_layer
from services.experts.sparse_split import SparsePlan


@dataclass(frozen=True)
class Recipe:
    """Settings of the distillation. `batch` counts sequences; `anneal` is the share of steps in which the experts
    that were not chosen fall silent; `num_steps` 0 takes as many as fit into `seconds`."""

    ranks: dict[str, int]
    batch: int = 32
    rate: float = 2e-3
    norm_rate: float = 5e-4
    warmup: int = 40
    anneal: float = 0.3
    distance: float = 1.0
    miss: float = 0.05
    clip: float = 1.0
    seconds: float = 240.0
    num_steps: int = 0
    kl_tokens: int = 4096
    compiled: bool = True


@dataclass
class Student:
    """What is trained, beside the permuted dense weights that it corrects."""

    plan: SparsePlan
    dense: Dense
    base: list[Layer]
    trained: list[Trained]
    norm: Tensor
    orders: list[Tensor]
    steps: int = 0
    history: list[dict[str, float]] = field(default_factory=list)


class Step:
    """Trains `student` in place, one batch [batch, length] at a time."""

    WARMING = 3

    def __init__(self, student: Student, length: int, recipe: Recipe, device: torch.device) -> None:
        self.student, self.recipe = student, recipe
        self.rope = rope_table(student.dense.shape, length, str(device))
        self.teach, self.learn, self.tell = dense_layer, make_layer(student.dense.shape, student.plan), piece
        if recipe.compiled:
            self.teach, self.learn = torch.compile(self.teach), torch.compile(self.learn)
            self.tell = torch.compile(self.tell)
        norms = [t for one in student.trained for t in (one.norm1, one.norm2)] + [student.norm]
        others = [t for one in student.trained for t in one[2:]]
        self.every = [*others, *norms]
        self.captured = device.type == "cuda"
        rates = [torch.zeros((), device=device) for _ in range(2)]
        self.optimizer = torch.optim.AdamW(
            [{"params": others, "lr": rates[0]}, {"params": norms, "lr": rates[1]}],
            betas=(0.9, 0.99), weight_decay=0.0, fused=self.captured, capturable=self.captured,
        )  # fmt: skip
        self.rates = rates
        self.ids = torch.zeros(recipe.batch, length, dtype=torch.long, device=device)
        self.keep, self.far_weight, self.miss_weight = (torch.zeros((), device=device) for _ in range(3))
        self.told: tuple[Tensor, Tensor, Tensor, Tensor] | None = None
        self.done = 0
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, ids: Tensor, keep: float, progress: float, rate: float) -> None:
        """One step. `keep`: how loud unchosen experts are; `progress` 0 to 1; `rate`: share of the peak rates."""
        self.ids.copy_(ids)
        self.keep.fill_(keep)
        self.far_weight.fill_(self.recipe.distance * (1 - progress) ** 2)
        self.miss_weight.fill_(self.recipe.miss * (1 - progress))
        self.rates[0].fill_(self.recipe.rate * rate)
        self.rates[1].fill_(self.recipe.norm_rate * rate)
        if not self.captured:
            self.optimizer.zero_grad(set_to_none=True)
            self.told = self._run()
        elif self.done < self.WARMING:
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                self.optimizer.zero_grad(set_to_none=True)
                self.told = self._run()
            torch.cuda.current_stream().wait_stream(side)
        else:
            if self.graph is None:
                torch.cuda.synchronize()
                self.optimizer.zero_grad(set_to_none=True)
                self.graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(self.graph):
                    self.told = self._run()
            self.graph.replay()
        self.done += 1

    def numbers(self) -> dict[str, float]:
        """Of the last step; waits for it."""
        assert self.told is not None
        kl, far, miss, most = (float(t) for t in self.told)
        return {"kl": kl, "distance": far, "miss": miss, "most_loaded": most, "keep": float(self.keep)}

    def _run(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        student, dense = self.student, self.student.dense
        with torch.no_grad():
            taught = [x for x, _ in hidden_states(dense, self.ids, self.teach)]
            target = final(dense, taught[-1]).flatten(0, 1)
        last, far, miss, loads = forward(
            dense,
            student.base,
            student.trained,
            student.norm,
            self.ids,
            taught,
            self.keep,
            self.learn,
            self.rope,
        )
        kl: Tensor = MeanKL.apply(last.flatten(0, 1), target, dense.embed, self.recipe.kl_tokens, self.tell)  # type: ignore[no-untyped-call]
        (kl + self.far_weight * far + self.miss_weight * miss).backward()
        torch.nn.utils.clip_grad_norm_(self.every, self.recipe.clip)
        self.optimizer.step()
        return kl.detach(), far.detach(), miss.detach(), loads.max()
