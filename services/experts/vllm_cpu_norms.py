"""RMSNorm on CPUs by vLLM's own C++ kernel, which 0.32 offers to GPUs only.

Rules: installed by vllm_cpu_plugin.py at the versions that it was tried on; an implementation beside vLLM's, by vLLM's
own register for them (vllm/ir), and first in the platform's order of preference.

Without a compiler's fusion each of a token's 61 norms is seven small torch calls; as one it spares 5% of a step of the
embedded model.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

PROVIDER = "expertmesh_cpu"


def _plain(weight: Tensor | None, x: Tensor, variance_size: int | None) -> bool:
    """What the kernel can do: the whole row counts, and weights are of the row's type."""
    return variance_size is None and weight is not None and weight.dtype == x.dtype and x.is_contiguous()


def _norm_fits(x: Tensor, weight: Tensor | None, epsilon: float, variance_size: int | None = None) -> bool:
    return _plain(weight, x, variance_size)


def _sum_and_norm_fit(
    x: Tensor, x_residual: Tensor, weight: Tensor | None, epsilon: float, variance_size: int | None = None
) -> bool:
    return _plain(weight, x, variance_size) and x_residual.is_contiguous()


def install(platform: Any) -> None:
    """Register, and let `platform` (CpuPlatform) prefer it."""
    from vllm import ir
    from vllm.config.kernel import IrOpPriorityConfig

    @ir.ops.rms_norm.register_impl(
        PROVIDER,
        supports_args=_norm_fits,
    )
    def rms_norm(
        x: Tensor, weight: Tensor | None, epsilon: float, variance_size: int | None = None
    ) -> Tensor:
        output = torch.empty_like(x)
        torch.ops._C.rms_norm(output, x, weight, epsilon)
        return output

    @ir.ops.fused_add_rms_norm.register_impl(
        PROVIDER,
        supports_args=_sum_and_norm_fit,
        inplace=True,
    )
    def fused_add_rms_norm(
        x: Tensor, x_residual: Tensor, weight: Tensor | None, epsilon: float, variance_size: int | None = None
    ) -> tuple[Tensor, Tensor]:
        torch.ops._C.fused_add_rms_norm(x, x_residual, weight, epsilon)
        return x, x_residual

    del rms_norm, fused_add_rms_norm
    preferred = [PROVIDER, "native"]

    def get_default_ir_op_priority(vllm_config: object) -> Any:
        del vllm_config
        return IrOpPriorityConfig.with_default(["native"], rms_norm=preferred, fused_add_rms_norm=preferred)

    platform.get_default_ir_op_priority = staticmethod(get_default_ir_op_priority)
