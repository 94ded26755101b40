"""Do weights and one long request fit the GPUs at all? Asked before anything starts. Pure: settings, a model's config
and bytes in; sizing.py has the formulas.

Rules: refuses only what cannot be: a little memory less than a group needs is vLLM's to say. Says what would fit.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..config import ExpertsConfig
from ..errors import ConfigError
from . import sizing

LEAST_RUNTIME_BYTES = 1e9
"""Activations, graphs and NCCL take 3 GB and more; less than this nobody has seen."""

_HALVED = ("fp8", "int8", "mxfp8")


def check_memory(
    config: ExpertsConfig, model: Mapping[str, object], gpu_bytes: float, weight_bytes: float = 0.0
) -> None:
    """Raise ConfigError when a GPU of `gpu_bytes` cannot hold its part. `weight_bytes` is the size of the files (0: not
    known, 16 bits each); what is quantised while loading is taken as half of it."""
    try:
        total = sizing.weights(model).total
    except ConfigError:  # a shape that the formulas do not know
        return
    if gpu_bytes <= 0:
        return
    bits = weight_bytes / total if weight_bytes else 2.0
    if config.quantization.startswith(_HALVED):
        bits /= 2
    found = _needs(config, model, config.shards, bits)
    usable = gpu_bytes * config.gpu_memory_utilization
    if config.gpu_kv_cache_bytes:
        usable = gpu_bytes
    if found <= usable:
        return
    fits = [
        n for n in (1, 2, 4, 8, 16, 32, 64) if n > config.shards and _fits(config, model, n, bits, usable)
    ]
    would = f"shards={fits[0]} would fit" if fits else "no number of shards up to 64 would"
    raise ConfigError(
        f"a GPU's part of the weights and a cache for one request of {config.max_model_len:,} tokens are "
        f"{found / 1e9:.1f} GB, and {usable / 1e9:.1f} GB of a GPU here may be used: {would}; so might fewer bits "
        "(quantization=fp8, or `expertmesh model quantize`), or a smaller max_model_len"
    )


def _fits(
    config: ExpertsConfig, model: Mapping[str, object], shards: int, bits: float, usable: float
) -> bool:
    experts = sizing.weights(model).num_experts
    return bool(experts) and not experts % shards and _needs(config, model, shards, bits) <= usable


def _needs(config: ExpertsConfig, model: Mapping[str, object], shards: int, bits: float) -> float:
    part = sizing.size(
        model,
        sizing.GPUS["H100"],  # any: only its own memory and speed differ
        tensor_parallel=config.tensor_parallel,
        data_parallel=shards,
        redundant_experts=config.redundant_experts,
        bytes_per_weight=bits,
    )
    cache = config.gpu_kv_cache_bytes or config.max_model_len * part.kv_bytes_per_token
    return part.weight_bytes + cache + LEAST_RUNTIME_BYTES
