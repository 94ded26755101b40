"""The experts of graphs.prod: what the options say, checked against the model's files, this host's GPUs and its drain.

Rules: as profiles.py; values and checks, no cluster.
"""

import json
from pathlib import Path

from services.capacity.boot_plan import NodeFacts
from services.config import ExpertsConfig
from services.config_capacity import DrainConfig
from services.errors import ConfigError
from services.experts import drain_rule, gpu_memory, groups, weight_files

from . import checks, host_gpus
from .options import ProdOptions


def gpu_experts(options: ProdOptions) -> ExpertsConfig:
    """Checked against the model's files and this host's GPUs, before any cluster is touched."""
    folder = Path(options.model)
    weight_files.refuse_encrypted(folder)
    try:
        model: dict[str, object] = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"no weights: {folder} holds no readable config.json ({error})") from error
    experts = ExpertsConfig(
        engine="vllm",
        model_path=options.model,
        model_name=options.name or folder.name,
        revision=options.revision,
        device="cuda",
        listen_host="",  # the node's own address: gateways may be on other nodes
        shards=options.shards,
        groups=options.groups,
        tensor_parallel=options.tensor_parallel,
        expert_parallel=options.expert_parallel,
        redundant_experts=options.redundant_experts,
        balance_every_steps=options.balance_every_steps,
        all_to_all=options.all_to_all,
        stuck_after_s=options.stuck_after_s,
        max_num_seqs=options.max_num_seqs,
        max_model_len=options.max_model_len,
        max_num_batched_tokens=options.max_num_batched_tokens,
        quantization=options.quantization,
        load_format="dummy" if options.dummy_weights else "safetensors",
        gpu_memory_utilization=options.gpu_memory_utilization,
        gpu_kv_cache_bytes=int(options.gpu_kv_cache_gb * 1e9),
        adapters=checks.adapters(options.adapters),
        max_adapters=options.max_adapters,
        max_kept_adapters=options.max_kept_adapters,
        max_adapter_rank=options.max_adapter_rank,
        cuda_graph_sizes=tuple(int(size) for size in options.cuda_graph_sizes.split(",") if size),
        enforce_eager=False,
        pin_cores=False,
    )
    groups.check(experts, model)
    weight_bytes = 0 if options.dummy_weights else weight_files.check(folder)
    if not options.remote_gpus:
        groups.check_gpus(experts, host_gpus.num_gpus())
        gpu_memory.check_memory(experts, model, host_gpus.gpu_bytes(), weight_bytes)
    return experts


def drained(experts: ExpertsConfig, options: ProdOptions) -> ExpertsConfig:
    """With `drain_s`, checked against what a drain of Terraform's nodes leaves, as this node was told it. Raises
    ConfigError when a replica could outlive its node."""
    if not options.by_labels:
        return experts.model_copy(update={} if options.drain_s is None else {"drain_s": options.drain_s})
    drain, facts = DrainConfig(), Path(options.facts)
    if facts.is_file():
        try:
            drain = NodeFacts.model_validate_json(facts.read_bytes()).capacity().drain
        except ValueError as error:
            raise ConfigError(f"{facts} does not say what this node is: {error}") from error
    drain_s = drain.graceful_shutdown_timeout_s - drain_rule.SHUTDOWN_MARGIN_S
    drain_s = max(0.0, drain_s) if options.drain_s is None else options.drain_s
    experts = experts.model_copy(update={"drain_s": drain_s})
    drain_rule.check(experts, drain)
    return experts
