"""Tiny DeepSeek models of random weights: what vLLM on this CPU says beside what transformers says. A program of its
own (`python -m tests.cluster.deepseek_probe`), because vLLM runs inside it; prints one JSON line per model.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch

LENGTH, STEPS = 48, 8
SHAPE: dict[str, Any] = {
    "vocab_size": 512, "hidden_size": 128, "intermediate_size": 256, "moe_intermediate_size": 64,
    "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 4, "n_routed_experts": 8,
    "n_shared_experts": 1, "num_experts_per_tok": 2, "kv_lora_rank": 512, "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 64, "v_head_dim": 32, "first_k_dense_replace": 1, "max_position_embeddings": 1024,
    "initializer_range": 0.05, "tie_word_embeddings": False,
}  # fmt: skip
"""vLLM's CPU kernel for MLA knows one size of latent and rotary key: 512 + 64."""

YARN = {
    "rope_type": "yarn", "rope_theta": 10000.0, "factor": 4, "original_max_position_embeddings": 256, "beta_fast": 32,
    "beta_slow": 1, "mscale": 0.707, "mscale_all_dim": 0.707,
}  # fmt: skip
V2 = {"q_lora_rank": None, "n_group": 1, "topk_group": 1, "topk_method": "greedy", "norm_topk_prob": False}
V3 = {"q_lora_rank": 64, "n_group": 4, "topk_group": 2, "norm_topk_prob": True, "routed_scaling_factor": 2.5}
MODELS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    # transformers' class, its settings, and what transformers takes for granted but vLLM reads
    "V2": ("DeepseekV2", V2, {}),
    "V2, scaled positions": ("DeepseekV2", V2 | {"rope_scaling": YARN}, {}),
    "V3": ("DeepseekV3", V3, {"topk_method": "noaux_tc", "scoring_func": "sigmoid"}),
}


def make(kind: str, settings: dict[str, Any], stated: dict[str, Any], folder: Path) -> Any:
    """The model as transformers has it, its checkpoint in `folder`. Norms and score corrections are not all alike."""
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**SHAPE, **settings)
    model = getattr(transformers, f"{kind}ForCausalLM")(config).float().eval()
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if "norm" in name:
                value.copy_(1 + 0.1 * torch.randn_like(value))
            elif "e_score_correction_bias" in name:
                value.copy_(0.1 * torch.randn_like(value))
    model.save_pretrained(folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | stated))
    return model


@torch.no_grad()
def compare(kind: str, settings: dict[str, Any], stated: dict[str, Any]) -> dict[str, Any]:
    """The largest difference of a logprob, over the prompt and over what was generated; and both greedy answers."""
    from vllm import LLM, SamplingParams

    with tempfile.TemporaryDirectory() as made:
        model = make(kind, settings, stated, Path(made))
        prompt = torch.randint(3, 512, (LENGTH,)).tolist()
        llm = LLM(
            model=made, dtype="float32", skip_tokenizer_init=True, enforce_eager=True, max_model_len=256,
            max_num_seqs=2, enable_prefix_caching=False,
        )  # fmt: skip
        told = SamplingParams(
            max_tokens=STEPS, temperature=0, prompt_logprobs=5, logprobs=5, detokenize=False, ignore_eos=True
        )
        (answer,) = llm.generate({"prompt_token_ids": prompt}, told, use_tqdm=False)
    found = list(answer.outputs[0].token_ids)
    logits = model(torch.tensor([prompt + found])).logits[0].double()
    expected = torch.log_softmax(logits, -1)

    def worst(positions: Any, first: int) -> float:
        return max(
            abs(one.logprob - float(expected[first + at, token]))
            for at, alternatives in enumerate(positions)
            for token, one in (alternatives or {}).items()
        )

    return {
        "prompt": worst(answer.prompt_logprobs[1:], 0),
        "generated": worst(answer.outputs[0].logprobs, LENGTH - 1),
        "same_tokens": found == expected[LENGTH - 1 : -1].argmax(-1).tolist(),
        "spread": float(expected.std()),
    }


if __name__ == "__main__":
    os.environ.update(
        VLLM_ENABLE_V1_MULTIPROCESSING="0", VLLM_NO_USAGE_STATS="1", HF_HUB_OFFLINE="1", TORCH_COMPILE_DISABLE="1",
        VLLM_LOGGING_LEVEL="ERROR", VLLM_CPU_OMP_THREADS_BIND="0", OMP_NUM_THREADS="1", VLLM_CPU_KVCACHE_SPACE="1",
    )  # fmt: skip
    torch.set_num_threads(1)
    for name, told in MODELS.items():
        print(json.dumps({"model": name, **compare(*told)}), flush=True)
