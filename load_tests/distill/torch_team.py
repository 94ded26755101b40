"""Several processes, one GPU each, that train one student: each writes texts of its own, gradients are averaged.

Rules: torch.distributed as `torchrun` sets it up (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_*); without these it is a team
of one, to whom every call is nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
from torch import Tensor
from torch import distributed as dist


class Team:
    """`rank` 0 speaks for all: it prints, keeps and judges."""

    def __init__(self) -> None:
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        self.device = torch.device("cpu")
        if torch.cuda.is_available():
            self.device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
            torch.cuda.set_device(self.device)
        if self.size > 1:
            dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo")

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def mean(self, tensor: Tensor) -> None:
        """In place, over all members."""
        if self.size > 1:
            dist.all_reduce(tensor)
            tensor /= self.size

    def follow(self, tensors: Iterable[Tensor]) -> None:
        """Make these the leader's, in place."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def agree(self, number: int) -> int:
        """The leader's number."""
        said = torch.tensor([number], device=self.device)
        self.follow([said])
        return int(said)

    def part(self) -> None:
        """Wait for everyone, then leave."""
        if self.size > 1:
            dist.barrier()
            dist.destroy_process_group()
