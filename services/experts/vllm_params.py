"""Our words in vLLM's: a GenerateJob as SamplingParams, ExpertsConfig as engine arguments.

Rules: no engine, no I/O; values in, vLLM's values out.
"""

from __future__ import annotations

import hashlib
from collections import Counter

from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams

from ..config import ExpertsConfig
from ..request import GenerateJob, GuidedDecoding, count_ids, unpack_ids
from . import adapter_files
from .groups import CPU_BLOCK_TOKENS, CPU_IDLE_STEPS, CPU_PREFILL_CHUNK, RankPlace
from .vllm_cpu_executor import CpuExecutor
from .vllm_gpu_args import use_gpus
from .vllm_resume_plugin import EMITTED_KEY


def sampling_params(job: GenerateJob) -> SamplingParams:
    """What vLLM is told. Of a resumed job, what was emitted counts against `max_tokens` and `min_tokens`, and the
    guided grammar is told how many of the prompt's tokens are its own. Raises ValueError for values that vLLM
    refuses."""
    asked = job.sampling
    emitted = count_ids(job.emitted_ids)
    return SamplingParams(
        max_tokens=asked.max_tokens - emitted,
        min_tokens=max(0, asked.min_tokens - emitted),
        temperature=asked.temperature,
        top_p=asked.top_p,
        top_k=asked.top_k,
        min_p=asked.min_p,
        seed=_seed(asked.seed, emitted),
        stop_token_ids=list(asked.stop_token_ids) or None,
        presence_penalty=asked.presence_penalty,
        frequency_penalty=asked.frequency_penalty,
        repetition_penalty=asked.repetition_penalty,
        logit_bias=_bias(job),
        logprobs=asked.logprobs,
        ignore_eos=asked.ignore_eos,
        structured_outputs=_structured(asked.guided) if asked.guided is not None else None,
        detokenize=False,
        output_kind=RequestOutputKind.DELTA,
        extra_args={EMITTED_KEY: emitted} if emitted else None,
        skip_clone=True,
    )


def priority(job: GenerateJob) -> int:
    """vLLM's priority, lower first: a stream that another engine or the queue interrupted is computed again before new
    prompts, whose clients have not seen a token yet."""
    return -1 if job.emitted_ids else 0


def _bias(job: GenerateJob) -> dict[int, float] | None:
    """The client's bias, plus what the frequency and presence penalties owe to emitted tokens: to vLLM those are
    prompt, which these penalties leave alone. (A token that occurs before and after a migration gets the presence
    penalty twice; the repetition penalty counts prompts anyway.)"""
    asked = job.sampling
    if not job.emitted_ids or not (asked.frequency_penalty or asked.presence_penalty):
        return asked.logit_bias
    bias = dict(asked.logit_bias or {})
    for token_id, count in Counter(unpack_ids(job.emitted_ids)).items():
        owed = asked.frequency_penalty * count + asked.presence_penalty
        bias[token_id] = bias.get(token_id, 0.0) - owed
    return bias


def _seed(seed: int | None, emitted: int) -> int | None:
    """The seed of a resumed stream depends on where it resumes: with the same seed again, the random numbers that
    chose the first tokens would choose the next ones too. So a seeded answer is the same for the same seed and
    the same place of migration, and without migration always."""
    if seed is None or not emitted:
        return seed
    digest = hashlib.blake2b(f"{seed}:{emitted}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def _structured(guided: GuidedDecoding) -> StructuredOutputsParams:
    if guided.kind == "json_object":
        return StructuredOutputsParams(json_object=True)
    if guided.kind == "json_schema":
        return StructuredOutputsParams(json=guided.spec)
    if guided.kind == "regex":
        return StructuredOutputsParams(regex=guided.spec)
    return StructuredOutputsParams(grammar=guided.spec)


def engine_args(config: ExpertsConfig, place: RankPlace) -> AsyncEngineArgs:
    """Arguments of one rank's engine."""
    args = AsyncEngineArgs(
        model=config.model_path,
        served_model_name=[config.model_name],
        dtype=config.dtype,
        max_model_len=config.max_model_len,
        max_num_seqs=config.max_num_seqs,
        tensor_parallel_size=config.tensor_parallel,
        enforce_eager=config.enforce_eager,
        enable_prefix_caching=True,
        trust_remote_code=False,
        load_format=config.load_format,
        # Here and not later: vLLM resolves the names of what it quantises itself when the arguments are made.
        quantization=(config.quantization or None) if config.device == "cuda" else None,
        seed=0,
        disable_log_stats=True,  # vLLM's own loggers; ours gets the statistics all the same
        enable_log_requests=False,
        generation_config="auto",
        scheduling_policy="priority",
    )
    if config.device == "cpu":
        args.kv_cache_memory_bytes = config.kv_cache_bytes
        args.max_num_batched_tokens = max(CPU_PREFILL_CHUNK, config.max_num_seqs)
        args.block_size = CPU_BLOCK_TOKENS
    else:
        use_gpus(args, config)
    if config.adapters:
        args.enable_lora = True
        args.max_loras = min(config.max_adapters, config.max_kept_adapters)
        args.max_cpu_loras = config.max_kept_adapters
        args.max_lora_rank = config.max_adapter_rank
        # Only these: what vLLM wraps for adapters it wraps for everyone, and experts it cannot on CPUs.
        args.lora_target_modules = list(adapter_files.base_of(config.model_name, config.model_path).modules)
    if config.expert_parallel == "on":
        args.enable_expert_parallel = True
    if not place.alone:
        args.data_parallel_size = place.size
        args.data_parallel_rank = place.rank
        args.data_parallel_address = place.host
        args.data_parallel_rpc_port = place.port
        args.enable_expert_parallel = config.expert_parallel != "off"
        if config.device == "cpu":
            # The group asks itself every so many steps whether anybody has work, and takes empty ones until then: on
            # CPUs these take every core (16 of them by default), and the question takes no time.
            args.dp_sync_interval = CPU_IDLE_STEPS
    if config.tensor_parallel > 1:
        # Inside a gang's placement group vLLM would choose its Ray executor, which CPUs lack and we do not want:
        # a rank's workers are children of the rank.
        args.distributed_executor_backend = "mp"
    elif config.device == "cpu":
        args.distributed_executor_backend = CpuExecutor
    return args
