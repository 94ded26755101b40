"""The section `experts` of config.py, which re-exports it: ranks, groups, engines, adapters.

Rules: as config.py. What must hold between these and a model's own config is checked in experts/groups.py.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Quantization = Literal[
    "", "fp8", "fp8_per_tensor", "fp8_per_block", "fp8_per_channel", "int8_per_channel_weight_only", "experts_int8",
    "mxfp8",
]  # fmt: skip
"""What vLLM can make of unquantised weights while it loads them."""


AllToAll = Literal[
    "", "allgather_reducescatter", "deepep_high_throughput", "deepep_low_latency", "flashinfer_nvlink_two_sided",
    "flashinfer_nvlink_one_sided",
]  # fmt: skip
"""vLLM's ways between data parallel ranks. All but the first need libraries that vLLM does not bring."""


class ExpertsConfig(BaseModel):
    """Expert-parallel shards and the engine inside each."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: Literal["vllm", "sim"] = "vllm"
    model_path: str = ""
    model_name: str = "smollm2-moe"
    revision: str = Field(
        default="", max_length=64, description="what releases call this revision; empty: the weights' hash"
    )
    device: Literal["cpu", "cuda"] = "cpu"
    shards: int = Field(
        default=1, ge=1, description="ranks of one group (data parallel attention, expert parallel MoE)"
    )
    groups: int = Field(default=1, ge=1)
    tensor_parallel: int = Field(default=1, ge=1)
    max_num_seqs: int = Field(default=16, ge=1)
    max_model_len: int = Field(default=2048, ge=16)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    enforce_eager: bool = True
    kv_cache_bytes: int = Field(default=512 * 1024 * 1024, ge=1)
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1.0)
    gpu_kv_cache_bytes: int = Field(
        default=0, ge=0, description="KV cache of one GPU; 0: what gpu_memory_utilization leaves"
    )
    max_num_batched_tokens: int = Field(
        default=0, ge=0, description="most tokens of one step; 0: vLLM chooses by the GPU"
    )
    cuda_graph_sizes: tuple[int, ...] = Field(
        default=(), description="steps to capture, in tokens; fewer start sooner; empty: up to 1,280"
    )
    expert_parallel: Literal["auto", "on", "off"] = Field(
        default="auto", description="whole experts per GPU, or a slice of each; auto: where shards > 1"
    )
    redundant_experts: int = Field(
        default=0,
        ge=0,
        description="expert slots of a layer beyond one per expert; needs balance_every_steps",
    )
    balance_every_steps: int = Field(
        default=0, ge=0, description="the engine moves experts between GPUs after so many steps; 0: never"
    )
    all_to_all: AllToAll = Field(
        default="",
        description="how tokens reach their experts; empty: gather and scatter, which every GPU host has",
    )
    quantization: Quantization = Field(
        default="", description="made while loading, of unquantised weights; empty: as the weights say"
    )
    load_format: Literal["safetensors", "dummy"] = Field(
        default="safetensors", description="dummy: random weights, to measure a shape without having it"
    )
    adapters: str = Field(
        default="",
        description="folder of LoRA adapters, one folder each as PEFT writes them; empty: none are served",
    )
    max_adapters: int = Field(default=4, ge=1, description="different adapters in one step of an engine")
    max_kept_adapters: int = Field(
        default=32,
        ge=1,
        description="adapters that an engine keeps in memory; the least recently used one goes",
    )
    max_adapter_rank: Literal[8, 16, 32, 64, 128, 256] = 16
    pin_cores: bool = True
    fork_server: str = Field(
        default="", description="the process that has imported vLLM for CPU ranks; empty: one per node"
    )
    sim_prefill_tokens_per_s: float = Field(default=100_000.0, gt=0)
    sim_step_s: float = Field(default=0.02, ge=0)
    sim_step_per_seq_s: float = Field(default=0.0, ge=0)
    sim_kv_tokens: int = Field(default=1_000_000, ge=16)
    stuck_after_s: float = Field(default=1.0, gt=0)
    listen_host: str = "127.0.0.1"
    drain_s: float = Field(default=30.0, ge=0)
