"""LoRA adapters on CPUs: vLLM's own way (0.32) gives tokens without an adapter the weights of its last slot.

Rules: installed by vllm_cpu_plugin.py at the versions that it was tried on. tests/cluster/test_vllm_cpu_plugin.py holds
both: that it is wrong as shipped, and right here.

As shipped, each token's two matrices are fetched by the number of its slot (`weights[indices]`), and "no adapter" is
-1: in torch the last slot. So a request for the base, beside one with an adapter or after one, is answered with
whatever adapter lies there. It also copies both matrices for every token: 19 MB for 512 tokens and one projection of
the embedded model. Here a step's rows are sorted by slot once, and each adapter is two products over its own rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

Rows = list[tuple[int, torch.Tensor | None]]
"""(slot, its rows of the batch); None: all of them."""


def rows_by_slot(slots: torch.Tensor) -> Rows:
    """Of each token's slot [tokens], -1 where it has none."""
    array = slots.numpy()
    used = np.unique(array[array >= 0])
    if len(used) == 1 and (array >= 0).all():
        return [(int(used[0]), None)]
    return [(int(slot), torch.from_numpy(np.flatnonzero(array == slot))) for slot in used]


def add_adapters(
    y: torch.Tensor,
    x: torch.Tensor,
    lora_a: tuple[torch.Tensor, ...],
    lora_b: tuple[torch.Tensor, ...],
    scale: float,
    sizes: tuple[int, ...],
    rows: Rows,
) -> None:
    """Add x · A · B to y [tokens, out], in place: for each adapter its rows, for each projection that is packed into y
    its columns. A [slots, 1, rank, in], B [slots, 1, out, rank]."""
    for slot, which in rows:
        part = x if which is None else x[which]
        begin = 0
        for a, b, size in zip(lora_a, lora_b, sizes, strict=True):
            delta = (part @ a[slot, 0].T).mul_(scale) @ b[slot, 0].T
            columns = y[:, begin : begin + size]
            if which is None:
                columns += delta
            else:
                columns.index_add_(0, which, delta)
            begin += size


def install(wrapper: Any) -> None:
    """`wrapper` is PunicaWrapperCPU."""
    shipped = wrapper.update_metadata

    def update_metadata(self: Any, *args: Any, **named: Any) -> None:
        shipped(self, *args, **named)
        self._expertmesh_rows = rows_by_slot(self.token_lora_indices)

    def add_lora_linear(
        self: Any,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: tuple[torch.Tensor, ...],
        lora_b_stacked: tuple[torch.Tensor, ...],
        scale: float,
        output_slices: tuple[int, ...],
        **_: Any,
    ) -> None:
        rows = self._expertmesh_rows
        if rows:
            flat = y.view(-1, y.shape[-1])
            add_adapters(
                flat, x.view(-1, x.shape[-1]), lora_a_stacked, lora_b_stacked, scale, output_slices, rows
            )

    wrapper._expertmesh_rows = []
    wrapper.update_metadata = update_metadata
    wrapper.add_lora_linear = add_lora_linear
