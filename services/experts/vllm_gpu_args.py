"""ExpertsConfig in vLLM's words, as far as it concerns GPUs.

Rules: no engine, no I/O; values in, vLLM's values out. What is not set is left to vLLM.
"""

from __future__ import annotations

from vllm.config import EPLBConfig
from vllm.engine.arg_utils import AsyncEngineArgs

from ..config import ExpertsConfig
from .graph_sizes import graph_sizes


def use_gpus(args: AsyncEngineArgs, config: ExpertsConfig) -> None:
    """Set what a rank on GPUs needs. A rank with one GPU has its worker inside its engine core: one process, one
    import of vLLM and one hop per step less than vLLM's choice for data parallel ranks."""
    args.gpu_memory_utilization = config.gpu_memory_utilization
    if config.gpu_kv_cache_bytes:
        args.kv_cache_memory_bytes = config.gpu_kv_cache_bytes
    if config.max_num_batched_tokens:
        args.max_num_batched_tokens = config.max_num_batched_tokens
    if not config.enforce_eager:  # vLLM leaves those out that no step of its reaches
        args.cudagraph_capture_sizes = list(config.cuda_graph_sizes or graph_sizes())
    if config.balance_every_steps:
        every = config.balance_every_steps
        args.enable_eplb = True
        args.eplb_config = EPLBConfig(
            window_size=every, step_interval=every, num_redundant_experts=config.redundant_experts
        )  # without its log of how even the work is: 0.26 compares layers there, not ranks
    if config.all_to_all:
        args.all2all_backend = config.all_to_all
    if config.tensor_parallel == 1:
        args.distributed_executor_backend = "uni"
