"""Which ranks make a group, where each runs, and whether that can work. Pure: settings and counts in, plans out.

Rules: knows ExpertsConfig, a model's config.json as a dict and what a host has; no Ray, no vLLM. A *group* is
the set of ranks that lives or dies together: data parallel attention, expert parallel MoE, and tensor parallel
inside a rank. One rank is one process; on GPUs it holds `tensor_parallel` of them, on CPU one core or more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..config import ExpertsConfig
from ..errors import ConfigError

KNOWN_QUANTIZATIONS = (
    "awq", "auto_awq", "awq_marlin", "gptq", "auto_gptq", "gptq_marlin", "compressed-tensors", "fp8", "fbgemm_fp8",
    "modelopt", "modelopt_fp4", "modelopt_mxfp8", "experts_int8", "moe_wna16", "quark", "torchao", "bitsandbytes",
    "mxfp4", "fp_quant", "inc",
)  # fmt: skip
"""What vLLM reads weights in, as their config.json calls it."""

_EXPERT_COUNTS = ("num_local_experts", "n_routed_experts", "num_experts")
CPU_IDLE_STEPS = 2
"""Steps between two questions of a data parallel group of CPU ranks whether anybody has work."""

CPU_BLOCK_TOKENS = 32
"""Tokens of a block of the prefix cache on CPU. What a paused or moved stream need not read again comes in whole
blocks, and vLLM's own 128 are more than most prompts have; its kernels take multiples of 32 (MLA's 16, whatever is
asked for)."""

CPU_PREFILL_CHUNK = 128
"""Most prompt tokens of one step on CPU: bounds how long a step lasts, and so how long everybody else in it waits for
their next token, and what "stuck" can mean. 64 make a prompt wait for others' (docs/benchmarks/2026-11-23-queue.md)."""


@dataclass(frozen=True)
class RankPlace:
    """Where one rank of a group runs. `cores` are what it is pinned to (empty: not pinned); `host` and `port`
    are where the group's ranks meet (rank 0's)."""

    rank: int = 0
    size: int = 1
    host: str = "127.0.0.1"
    port: int = 0
    cores: tuple[int, ...] = ()

    @property
    def alone(self) -> bool:
        """The group has one rank: nothing to meet."""
        return self.size == 1


def split_cores(cores: Sequence[int], ranks: int) -> list[tuple[int, ...]]:
    """Cores of each rank: equal runs, what is left over goes unused. Raises ConfigError when there are too few."""
    if ranks > len(cores):
        raise ConfigError(
            f"{ranks} expert-parallel ranks or workers want a core each and there are {len(cores)}: "
            f"set EXPERTMESH_SHARDS={len(cores)} or fewer, or a smaller tensor_parallel"
        )
    each = len(cores) // ranks
    ordered = sorted(cores)
    return [tuple(ordered[r * each : (r + 1) * each]) for r in range(ranks)]


def bundle(config: ExpertsConfig) -> dict[str, float]:
    """Ray resources of one rank. CPU ranks ask for a fraction only: what they use is decided by pinning, and a
    laptop with two cores must also hold the gateway and its siblings."""
    if config.engine == "sim":
        return {"CPU": 0.1}
    if config.device == "cuda":
        return {"CPU": 1.0, "GPU": float(config.tensor_parallel)}
    return {"CPU": 0.25}


def num_experts(model: Mapping[str, object]) -> int:
    """Routed experts per MoE layer; 0 for a dense model."""
    for key in _EXPERT_COUNTS:
        if isinstance(count := model.get(key), int):
            return count
    return 0


def check(config: ExpertsConfig, model: Mapping[str, object]) -> None:
    """Raise ConfigError, saying what would fit, when the model cannot be split as the settings say."""
    heads = _number(model, "num_attention_heads", 1)
    kv_heads = _number(model, "num_key_value_heads", heads)
    tensor = config.tensor_parallel
    if heads % tensor or (kv_heads % tensor and tensor % kv_heads):
        fits = [t for t in range(1, heads + 1) if not heads % t and (not kv_heads % t or not t % kv_heads)]
        raise ConfigError(
            f"tensor_parallel={tensor} does not divide the model's {heads} attention heads and {kv_heads} "
            f"key/value heads: {_any_of(fits)} would"
        )
    experts, ranks = num_experts(model), config.shards * tensor
    if config.shards > 1 and not experts:
        raise ConfigError(f"shards={config.shards}, but the model has no experts: raise groups instead")
    if experts and config.shards > 1 and experts % ranks:
        fits = [s for s in range(1, experts + 1) if experts % (s * tensor) == 0]
        raise ConfigError(f"{experts} experts do not spread over {ranks} ranks: shards={_any_of(fits)} would")
    _check_balance(config, experts)
    _check_quantization(config, model)
    context = _number(model, "max_position_embeddings", config.max_model_len)
    if config.max_model_len > context:
        raise ConfigError(f"max_model_len={config.max_model_len}, but the model ends at {context} tokens")


def _check_balance(config: ExpertsConfig, experts: int) -> None:
    redundant, ranks = config.redundant_experts, config.shards * config.tensor_parallel
    if not (redundant or config.balance_every_steps):
        return
    whole = config.expert_parallel == "on" or (config.expert_parallel == "auto" and config.shards > 1)
    if config.device != "cuda" or ranks == 1 or not whole or not experts:
        raise ConfigError(
            "redundant_experts and balance_every_steps are for groups of several GPUs that hold whole experts: raise "
            "shards, or set expert_parallel=on with tensor_parallel"
        )
    if redundant and not config.balance_every_steps:
        raise ConfigError(f"redundant_experts={redundant} does nothing without balance_every_steps, say 1000")
    if (experts + redundant) % ranks:
        fits = [r for r in range(redundant + ranks + 1) if (experts + r) % ranks == 0]
        raise ConfigError(
            f"{experts} experts and {redundant} redundant ones do not fill {ranks} ranks evenly: "
            f"redundant_experts={_any_of(fits[-2:])} would"
        )


def _check_quantization(config: ExpertsConfig, model: Mapping[str, object]) -> None:
    said = model.get("quantization_config")
    method = said.get("quant_method") if isinstance(said, Mapping) else None
    if method is None:
        return
    if method not in KNOWN_QUANTIZATIONS:
        known = ", ".join(KNOWN_QUANTIZATIONS)
        raise ConfigError(
            f"the weights are quantised by {method!r}, which is unknown here; known are {known}"
        )
    if config.quantization:
        raise ConfigError(
            f"quantization={config.quantization} is for unquantised weights, and these are {method} already"
        )


def check_gpus(config: ExpertsConfig, gpus: int) -> None:
    """Raise ConfigError when a host's GPUs are too few for all groups, saying what would fit."""
    rank, group = config.tensor_parallel, config.shards * config.tensor_parallel
    if config.groups * group <= gpus:
        return
    if group <= gpus:
        fits = f"groups={gpus // group} would fit"
    elif rank <= gpus:
        fits = f"shards={gpus // rank} would be as many as there are"
    else:
        fits = f"a rank alone wants tensor_parallel={rank}"
    raise ConfigError(
        f"{config.groups * group} GPUs are wanted (groups={config.groups} · shards={config.shards} · "
        f"tensor_parallel={rank}) and this host has {gpus}: {fits}; if more are on other nodes of the cluster, "
        "add remote_gpus=true"
    )


def environment(config: ExpertsConfig, place: RankPlace) -> dict[str, str]:
    """Variables of a rank's process, to be set before vLLM is imported."""
    env = {
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_LOGGING_STREAM": "ext://sys.stderr",
        # All frames of one step are handled in one turn of the event loop, whatever the batch size.
        "VLLM_V1_OUTPUT_PROC_CHUNK_SIZE": "4096",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if config.device == "cpu" and config.enforce_eager:
        # Or the first request with log-probabilities or top-p waits for a C++ compiler, 5 s and more on busy cores.
        env["TORCH_COMPILE_DISABLE"] = "1"
    if config.device == "cpu" and place.cores:
        workers = split_cores(place.cores, config.tensor_parallel)
        env["VLLM_CPU_OMP_THREADS_BIND"] = "|".join(",".join(map(str, cores)) for cores in workers)
        # Ray sets it to the replica's share of CPUs, and vLLM's workers inherit it.
        env["OMP_NUM_THREADS"] = str(len(workers[0]))
    return env


def fork_server_environment() -> dict[str, str]:
    """Variables of the process that imports vLLM for the CPU ranks of a node; each adds its own `environment`."""
    config = ExpertsConfig(engine="vllm", device="cpu", enforce_eager=True)
    shared = environment(config, RankPlace(cores=(0,)))
    del shared["VLLM_CPU_OMP_THREADS_BIND"]
    return shared


def _number(model: Mapping[str, object], key: str, default: int) -> int:
    value = model.get(key)
    return value if isinstance(value, int) else default


def _any_of(values: Sequence[int]) -> str:
    shown = [str(v) for v in values[:8]]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} or {shown[-1]}"
