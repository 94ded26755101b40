"""Model folders without weights, for benchmarks on GPUs: config.json and a tokenizer that knows no language.

    python -m load_tests.bench.gpu_models v2-lite FOLDER

Speed and memory depend on shapes only; vLLM fills in random weights (`load_format=dummy`). The tokenizer has bytes and
made-up words, so that every token has a text of its own.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from services.experts import quantize

Shape = dict[str, object]

_YARN: Shape = {
    "beta_fast": 32, "beta_slow": 1, "factor": 40, "original_max_position_embeddings": 4096, "type": "yarn",
}  # fmt: skip
V2_LITE: Shape = {
    "architectures": ["DeepseekV2ForCausalLM"], "model_type": "deepseek_v2", "attention_bias": False,
    "attention_dropout": 0.0, "bos_token_id": 100000, "eos_token_id": 100001, "first_k_dense_replace": 1,
    "hidden_act": "silu", "hidden_size": 2048, "initializer_range": 0.02, "intermediate_size": 10944,
    "kv_lora_rank": 512, "max_position_embeddings": 163840, "moe_intermediate_size": 1408, "moe_layer_freq": 1,
    "n_group": 1, "n_routed_experts": 64, "n_shared_experts": 2, "norm_topk_prob": False, "num_attention_heads": 16,
    "num_experts_per_tok": 6, "num_hidden_layers": 27, "num_key_value_heads": 16, "pretraining_tp": 1,
    "q_lora_rank": None, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "rms_norm_eps": 1e-06,
    "rope_scaling": {**_YARN, "mscale": 0.707, "mscale_all_dim": 0.707}, "rope_theta": 10000,
    "routed_scaling_factor": 1.0, "scoring_func": "softmax", "seq_aux": True, "tie_word_embeddings": False,
    "topk_group": 1, "topk_method": "greedy", "torch_dtype": "bfloat16", "use_cache": True, "v_head_dim": 128,
    "vocab_size": 102400,
}  # fmt: skip
V3_CUT: Shape = V2_LITE | {
    "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "hidden_size": 7168,
    "intermediate_size": 18432, "moe_intermediate_size": 2048, "n_group": 8, "topk_group": 4, "n_routed_experts": 256,
    "n_shared_experts": 1, "norm_topk_prob": True, "num_attention_heads": 128, "num_key_value_heads": 128,
    "num_experts_per_tok": 8, "num_hidden_layers": 3, "q_lora_rank": 1536, "routed_scaling_factor": 2.5,
    "rope_scaling": {**_YARN, "mscale": 1.0, "mscale_all_dim": 1.0}, "scoring_func": "sigmoid",
    "topk_method": "noaux_tc", "num_nextn_predict_layers": 0,
}  # fmt: skip
"""DeepSeek-V3's layers, three of 61: one dense, two with 256 experts. The vocabulary is V2's."""

V2_LITE_INT4: Shape = V2_LITE | {
    "quantization_config": {
        "quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "gemm",
        "modules_to_not_convert": ["self_attn", "shared_experts", "mlp.gate", "mlp.down_proj", "lm_head"],
    }
}  # fmt: skip
"""Routed experts in 4 bits with a scale and a zero point for each 128 weights, everything else in 16."""

SHAPES = {"v2-lite": V2_LITE, "v3-cut": V3_CUT, "v2-lite-int4": V2_LITE_INT4} | {
    f"v2-lite-made-{scheme}": V2_LITE | {"quantization_config": quantize.settings(scheme, 64)}
    for scheme in quantize.SCHEMES
}
"""`made`: as `expertmesh model quantize` makes them; groups of 64 are the most that divide the dense FFN's 10,944."""


def write(folder: Path, shape: Shape) -> None:
    """Make the folder what `--model` wants."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(shape, indent=1))
    (folder / "generation_config.json").write_text(
        json.dumps({"bos_token_id": shape["bos_token_id"], "eos_token_id": shape["eos_token_id"]})
    )
    words = shape["bos_token_id"]
    assert isinstance(words, int)
    vocabulary = {one: number for number, one in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    vocabulary |= {f"w{number}": number for number in range(len(vocabulary), words)}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    size = shape["vocab_size"]
    assert isinstance(size, int)
    made.add_special_tokens(
        [AddedToken(name, special=True) for name in ("<|begin|>", "<|end|>")]
        + [AddedToken(f"<|{number}|>", special=True) for number in range(size - words - 2)]
    )
    made.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|begin|>", "eos_token": "<|end|>",
                "clean_up_tokenization_spaces": False,
                "chat_template": "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:",
            }
        )
    )  # fmt: skip


if __name__ == "__main__":
    write(Path(sys.argv[2]), SHAPES[sys.argv[1]])
