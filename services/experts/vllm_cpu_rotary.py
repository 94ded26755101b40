"""Rotary positions of several heads on CPUs: vLLM's kernel (0.32) turns the first head only where heads have a
dimension of their own.

Rules: installed by vllm_cpu_plugin.py at the versions that it was tried on; tests/cluster/test_vllm_cpu_plugin.py fails
when vLLM no longer needs it, tests/cluster/test_deepseek.py holds what it is for.

The kernel takes the number of heads from the last dimension: [tokens, heads · size], as Llama's kind calls it, is
right; [tokens, heads, size], as MLA does, is one head to it. DeepSeek's own checkpoints scale their positions (YaRN),
which vLLM computes in torch, so that only MLA models without scaling are wrong: logprobs of tiny random V2 and V3
models were up to 0.26 off transformers', and are 1e-6 off with this.
"""

from __future__ import annotations

from typing import Any

import torch


def install(rotary: Any) -> None:
    """`rotary` is vLLM's RotaryEmbedding."""
    shipped = rotary.forward_cpu

    def forward_cpu(
        self: Any, positions: torch.Tensor, query: torch.Tensor, key: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        if query.dim() > 2:
            return self.forward_native(positions, query, key)
        return shipped(self, positions, query, key)

    rotary.forward_cpu = forward_cpu
