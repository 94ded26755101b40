"""The engines that the queue's bench asks (queue_vllm.py): a real vLLM on a CPU core or on a GPU, or the simulated one.

Answers of CPU engines in float32 are the same in every batch, so each token is compared with what the engine said
before. A GPU's bf16 sums differ from batch to batch, and random weights turn that into other tokens: there answers are
held to their length, and `exact` is false.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from services.config import ExpertsConfig
from services.experts.graph_sizes import graph_sizes


@dataclass(frozen=True)
class Setting:
    """One engine and the requests that it gets."""

    experts: ExpertsConfig | None
    """None: the simulated engine."""
    seqs: int = 8
    prompt_tokens: int = 32
    answers: tuple[int, int] = (4, 17)
    """Tokens of an answer: at least, less than."""
    batch_deadline_s: float = 8.0
    exact: bool = True


NAMES = ("embedded", "tiny", "sim", "gpu")

_ON_CPU = ExpertsConfig(
    engine="vllm", model_name="sim", device="cpu", shards=1, max_num_seqs=8, max_model_len=512, dtype="float32",
    enforce_eager=True, stuck_after_s=5.0,
)  # fmt: skip
_ON_GPU = ExpertsConfig(
    engine="vllm", model_name="sim", device="cuda", shards=1, max_num_seqs=64, max_model_len=2048, load_format="dummy",
    enforce_eager=False, max_num_batched_tokens=2048,
    gpu_kv_cache_bytes=int(8e9), gpu_memory_utilization=0.8, stuck_after_s=5.0, pin_cores=False,
)  # fmt: skip


def setting(name: str, folder: Path, model: str = "", graph_tokens: int = 0) -> Setting:
    """The engine called `name`, as graphs.dev configures its two on CPUs; `model`: the folder of `gpu`, with or without
    weights (gpu_models.py makes such), `graph_tokens` the longest step for which CUDA graphs are captured (0: the
    default). Makes what it needs in `folder`."""
    if name == "sim":
        return Setting(None)
    if name == "gpu":
        sizes = graph_sizes(graph_tokens) if graph_tokens else ()
        one = _ON_GPU.model_copy(update={"model_path": model, "cuda_graph_sizes": sizes})
        return Setting(
            one, one.max_num_seqs, prompt_tokens=512, answers=(32, 257), batch_deadline_s=20.0, exact=False
        )
    path = make_tiny(folder) if name == "tiny" else embedded()
    return replace(Setting(_ON_CPU.model_copy(update={"model_path": path})), seqs=_ON_CPU.max_num_seqs)


def embedded() -> str:
    from services.experts.model_store import default_model_path

    return str(default_model_path())


def make_tiny(folder: Path) -> str:
    """A random Mixtral with the embedded model's tokenizer (vLLM wants one, nobody here reads text)."""
    import torch
    from transformers import MixtralConfig, MixtralForCausalLM

    torch.manual_seed(1)
    config = MixtralConfig(
        vocab_size=49152, hidden_size=256, intermediate_size=512, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2, max_position_embeddings=512,
        initializer_range=0.2,
    )  # fmt: skip
    MixtralForCausalLM(config).save_pretrained(folder / "tiny")
    for file in Path(embedded()).glob("*token*"):
        shutil.copy(file, folder / "tiny")
    return str(folder / "tiny")
