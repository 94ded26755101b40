"""One step of the distillation: teacher, student, loss, gradients; then the optimizer; on a GPU two captured graphs.

Rules: what changes from step to step (texts, rates, how loud unchosen experts are) are tensors that are filled
before the step, since a captured graph sees nothing else. A step has some 3,000 kernels; launched one by one they
take longer than they run. Between the two graphs a team averages its gradients, which lie in one flat tensor.
"""

from __future__ import annotations

from collections.abc import Callable
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
    anneal: float = 0.0
    distance: float = 1.0
    miss: float = 0.2
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


class Replayed:
    """Work without arguments: on a GPU run a few times, then captured and replayed; elsewhere just run."""

    WARMING = 3

    def __init__(self, work: Callable[[], None], captured: bool) -> None:
        self.work, self.captured, self.done = work, captured, 0
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        if not self.captured:
            self.work()
        elif self.done < self.WARMING:
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                self.work()
            torch.cuda.current_stream().wait_stream(side)
        else:
            if self.graph is None:
                torch.cuda.synchronize()
                self.graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
                    self.work()
            self.graph.replay()
        self.done += 1


class Step:
    """Trains `student` in place, one batch [batch, length] at a time; `share` averages gradients over a team."""

    def __init__(
        self,
        student: Student,
        length: int,
        recipe: Recipe,
        device: torch.device,
        share: Callable[[Tensor], None] = lambda _: None,
    ) -> None:
        self.student, self.recipe, self.share = student, recipe, share
        self.rope = rope_table(student.dense.shape, length, str(device))
        self.teach, self.learn, self.tell = dense_layer, make_layer(student.dense.shape, student.plan), piece
        if recipe.compiled:
            self.teach, self.learn = torch.compile(self.teach), torch.compile(self.learn)
            self.tell = torch.compile(self.tell)
        norms = [t for one in student.trained for t in (one.norm1, one.norm2)] + [student.norm]
        others = [t for one in student.trained for t in one[2:]]
        self.every = [*others, *norms]
        captured = device.type == "cuda"
        self.gradients = torch.zeros(sum(t.numel() for t in self.every), device=device)
        for t, part in zip(self.every, self.gradients.split([t.numel() for t in self.every]), strict=True):
            t.grad = part.view_as(t)
        rates = [torch.zeros((), device=device) for _ in range(2)]
        self.optimizer = torch.optim.AdamW(
            [{"params": others, "lr": rates[0]}, {"params": norms, "lr": rates[1]}],
            betas=(0.9, 0.99), weight_decay=0.0, fused=captured, capturable=captured,
        )  # fmt: skip
        self.rates = rates
        self.ids = torch.zeros(recipe.batch, length, dtype=torch.long, device=device)
        self.keep, self.far_weight, self.miss_weight = (torch.zeros((), device=device) for _ in range(3))
        self.told: tuple[Tensor, Tensor, Tensor, Tensor] | None = None
        self.learn_once, self.apply = Replayed(self._learn, captured), Replayed(self._apply, captured)

    def __call__(self, ids: Tensor, keep: float, progress: float, rate: float) -> None:
        """One step. `keep`: how loud unchosen experts are; `progress` 0 to 1; `rate`: share of the peak rates."""
        self.ids.copy_(ids)
        self.keep.fill_(keep)
        self.far_weight.fill_(self.recipe.distance * (1 - progress) ** 2)
        self.miss_weight.fill_(self.recipe.miss * (1 - progress))
        self.rates[0].fill_(self.recipe.rate * rate)
        self.rates[1].fill_(self.recipe.norm_rate * rate)
        self.learn_once()
        self.share(self.gradients)
        self.apply()

    def numbers(self) -> dict[str, float]:
        """Of the last step; waits for it."""
        assert self.told is not None
        kl, far, miss, most = (float(t) for t in self.told)
        return {"kl": kl, "distance": far, "miss": miss, "most_loaded": most, "keep": float(self.keep)}

    def _learn(self) -> None:
        student, dense = self.student, self.student.dense
        self.gradients.zero_()
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
        self.told = kl.detach(), far.detach(), miss.detach(), loads.max()

    def _apply(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.every, self.recipe.clip)
        self.optimizer.step()
