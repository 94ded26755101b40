"""What a model needs on which GPUs: weights, KV cache and the limits of bandwidth and compute. Pure: config.json and
a GPU's data sheet in, numbers out. docs/sizing.md explains the formulas and holds them against measurements.

Rules: knows shapes and arithmetic; no torch, no file. Sizes are in bytes, counts in weights (parameters). Shapes:
Mixtral, Qwen3-MoE (grouped-query attention), DeepSeek V2/V3 (MLA, shared and routed experts, dense first layers),
and dense Llama kinds.

1. Attention, embeddings and the dense FFNs are split over `tensor_parallel` and repeated in every data parallel rank.
   MLA's latent projections are repeated in every tensor parallel rank as well; so are shared experts where tensor and
   data parallelism meet, since each rank then takes a part of the tokens through its experts.
2. Routed experts, redundant ones included, are spread over all GPUs of the group; routers are repeated.
3. The KV cache of a token is 2 · kv heads · head size per layer, split over tensor parallel ranks as far as there are
   heads; MLA keeps one latent and one rotary key per layer, in every tensor parallel rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from ..errors import ConfigError

Config = Mapping[str, object]


@dataclass(frozen=True)
class Gpu:
    """A data sheet's figures: memory and bandwidth in bytes (per second), dense BF16 operations per second."""

    name: str
    memory: float
    bandwidth: float
    bf16: float


GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu("A10G", 24e9, 600e9, 70e12),
        Gpu("A100-40G", 42.9e9, 1555e9, 312e12),
        Gpu("A100-80G", 85.9e9, 2039e9, 312e12),
        Gpu("L40S", 48e9, 864e9, 362e12),
        Gpu("H100", 85.5e9, 3350e9, 989e12),
        Gpu("H200", 150.7e9, 4800e9, 989e12),
    )
}


@dataclass(frozen=True)
class Weights:
    """Numbers of weights. `expert` is one routed expert of one layer; `per_token` counts what one token meets."""

    embeddings: int
    attention: int
    latent: int
    dense_ffn: int
    shared: int
    routers: int
    norms: int
    expert: int
    moe_layers: int
    num_experts: int
    experts_per_token: int

    @property
    def total(self) -> int:
        return self.resident + self.moe_layers * self.num_experts * self.expert

    @property
    def resident(self) -> int:
        """Everything but routed experts."""
        parts = self.embeddings + self.attention + self.latent + self.dense_ffn + self.shared
        return parts + self.routers + self.norms

    @property
    def per_token(self) -> int:
        return self.resident + self.moe_layers * self.experts_per_token * self.expert


def weights(config: Config) -> Weights:
    """Count a model's weights. Raises ConfigError when config.json lacks what the formulas need."""
    hidden, layers = _int(config, "hidden_size"), _int(config, "num_hidden_layers")
    heads = _int(config, "num_attention_heads")
    vocab = _int(config, "vocab_size")
    experts = next((_int(config, k) for k in _EXPERTS if config.get(k)), 0)
    width = _int(config, "moe_intermediate_size", _int(config, "intermediate_size"))
    dense_layers = layers if not experts else _int(config, "first_k_dense_replace", 0)
    moe_layers = layers - dense_layers
    if config.get("kv_lora_rank"):
        latent, rope = _int(config, "kv_lora_rank"), _int(config, "qk_rope_head_dim")
        nope, value = _int(config, "qk_nope_head_dim"), _int(config, "v_head_dim")
        query_rank = _int(config, "q_lora_rank", 0)
        query = heads * (nope + rope) * (query_rank or hidden)
        split = query + latent * heads * (nope + value) + heads * value * hidden
        repeated = hidden * (latent + rope) + latent + (hidden * query_rank + query_rank)
    else:
        size = _head_size(config)
        kv_heads = _int(config, "num_key_value_heads", heads)
        split = 2 * hidden * heads * size + 2 * hidden * kv_heads * size
        repeated = 2 * size if str(config.get("model_type", "")).startswith("qwen3") else 0
    return Weights(
        embeddings=vocab * hidden * (1 if config.get("tie_word_embeddings") else 2),
        attention=layers * split,
        latent=layers * repeated,
        dense_ffn=dense_layers * 3 * hidden * _int(config, "intermediate_size"),
        shared=moe_layers * _int(config, "n_shared_experts", 0) * 3 * hidden * width,
        routers=moe_layers * hidden * experts,
        norms=(2 * layers + 1) * hidden,
        expert=3 * hidden * width,
        moe_layers=moe_layers,
        num_experts=experts,
        experts_per_token=_int(config, "num_experts_per_tok", 0) if experts else 0,
    )


def kv_bytes_per_token(config: Config, tensor_parallel: int = 1, bytes_per_value: float = 2.0) -> float:
    """KV cache of one token on one GPU (rule 3)."""
    layers = _int(config, "num_hidden_layers")
    if config.get("kv_lora_rank"):
        return layers * (_int(config, "kv_lora_rank") + _int(config, "qk_rope_head_dim")) * bytes_per_value
    kv_heads = _int(config, "num_key_value_heads", _int(config, "num_attention_heads"))
    return layers * 2 * max(1.0, kv_heads / tensor_parallel) * _head_size(config) * bytes_per_value


@dataclass(frozen=True)
class Size:
    """One GPU's share of a group, and what the group can reach at `batch` running sequences. `kv_tokens` may be
    negative: then the model does not fit."""

    weight_bytes: float
    kv_bytes_per_token: float
    kv_tokens: int
    group_kv_tokens: int
    step_s_by_bandwidth: float
    step_s_by_compute: float
    tokens_per_s: float

    @property
    def fits(self) -> bool:
        return self.kv_tokens > 0


def size(
    config: Config,
    gpu: Gpu,
    *,
    tensor_parallel: int = 1,
    data_parallel: int = 1,
    redundant_experts: int = 0,
    bytes_per_weight: float = 2.0,
    utilization: float = 0.9,
    other_bytes: float = 3e9,
    batch: int = 256,
    context_tokens: int = 1024,
) -> Size:
    """A group of tensor_parallel · data_parallel GPUs. `batch` sequences in the whole group, `context_tokens` each.
    `other_bytes` is what activations, graphs and the runtime take (docs/sizing.md: measured)."""
    count = weights(config)
    gpus = tensor_parallel * data_parallel
    mixed = tensor_parallel > 1 and data_parallel > 1
    whole = count.latent + count.routers + count.norms + (count.shared if mixed else 0)
    split = count.embeddings + count.attention + count.dense_ffn + (0 if mixed else count.shared)
    slots = (count.num_experts + redundant_experts) * count.moe_layers / gpus
    per_gpu = (whole + split / tensor_parallel + slots * count.expert) * bytes_per_weight
    per_token = kv_bytes_per_token(config, tensor_parallel)
    kv_tokens = int((gpu.memory * utilization - other_bytes - per_gpu) / per_token)
    # What one decode step reads on one GPU: its dense share, the experts that its group's tokens hit, and the cache.
    hit = slots * _share_of_experts_hit(count, batch)
    here = batch / data_parallel
    read = (
        whole + split / tensor_parallel + hit * count.expert
    ) * bytes_per_weight + here * context_tokens * per_token
    by_bandwidth = read / gpu.bandwidth
    by_compute = 2.0 * count.per_token * batch / gpus / gpu.bf16
    return Size(
        per_gpu,
        per_token,
        kv_tokens,
        kv_tokens * data_parallel,
        by_bandwidth,
        by_compute,
        batch / max(by_bandwidth, by_compute),
    )


def smallest_group(
    config: Config, gpu: Gpu, *, bytes_per_weight: float = 2.0, kv_tokens: int = 65_536
) -> int | None:
    """The fewest GPUs (a power of two, one data parallel rank each) on which weights and `kv_tokens` tokens of cache
    per GPU fit; None when 512 are too few."""
    for gpus in (2**n for n in range(10)):
        experts = weights(config).num_experts
        if (gpus == 1 or (experts and experts % gpus == 0)) and size(
            config, gpu, data_parallel=gpus, bytes_per_weight=bytes_per_weight
        ).kv_tokens >= kv_tokens:
            return gpus
    return None


_EXPERTS = ("num_local_experts", "n_routed_experts", "num_experts")


def _share_of_experts_hit(count: Weights, batch: int) -> float:
    """Of a layer's experts, the share that at least one of `batch` tokens chose, if all are equally popular."""
    if not count.num_experts:
        return 0.0
    return 1.0 - (1.0 - count.experts_per_token / count.num_experts) ** batch


def _head_size(config: Config) -> int:
    return _int(config, "head_dim", _int(config, "hidden_size") // _int(config, "num_attention_heads"))


def _int(config: Config, key: str, default: int | None = None) -> int:
    value = config.get(key)
    if value is None:
        if default is None:
            raise ConfigError(f"the model's config.json has no {key}")
        return default
    return cast(int, value)
