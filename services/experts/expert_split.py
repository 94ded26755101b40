"""A dense Llama model as a Mixtral mixture of experts that computes the same function. Pure: arrays in and out.

Rules: knows names, shapes and the arithmetic; reads no file, knows no torch. The plan:

1. A gated FFN is a sum over its neurons: y = Σ_n down[:, n] · silu(gate[n] · x) · (up[n] · x).
2. Cut the neurons into E equal slices; slice e is expert e: w1 = its gate rows, w3 = its up rows, w2 = its down
   columns.
3. The router is zero and chooses all E experts, so that each has weight 1/E; w2 is multiplied by E. With E a
   power of two both are exact in floating point: what differs from the dense model is the order of one sum.
4. Attention, norms and embeddings stay as they are.

llama.cpp interleaves the two halves of each head's rotary dimensions in q and k; `dense_tensors` undoes it
(convert_hf_to_gguf.py, `LlamaModel.permute`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import cast

import numpy as np

from .gguf_file import Array, GgufFile

NamedTensor = tuple[str, Array]

_LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_TOP_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}


def dense_config(source: GgufFile) -> dict[str, object]:
    """`config.json` of the dense model, for transformers' `LlamaConfig`. Raises ValueError for another kind."""
    settings = source.settings
    if settings.get("general.architecture") != "llama":
        raise ValueError(f"expected a llama model, got {settings.get('general.architecture')}")
    heads = cast(int, settings["llama.attention.head_count"])
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": settings["llama.vocab_size"],
        "hidden_size": settings["llama.embedding_length"],
        "intermediate_size": settings["llama.feed_forward_length"],
        "num_hidden_layers": settings["llama.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": settings["llama.attention.head_count_kv"],
        "head_dim": cast(int, settings["llama.embedding_length"]) // heads,
        "hidden_act": "silu",
        "max_position_embeddings": settings["llama.context_length"],
        # The file holds float32 of 1e-05, which as a double reads 9.999999747378752e-06.
        "rms_norm_eps": float(f"{settings['llama.attention.layer_norm_rms_epsilon']:.6g}"),
        "rope_theta": settings["llama.rope.freq_base"],
        "tie_word_embeddings": "output.weight" not in source.tensors,
        "bos_token_id": settings["tokenizer.ggml.bos_token_id"],
        "eos_token_id": settings["tokenizer.ggml.eos_token_id"],
        "pad_token_id": settings["tokenizer.ggml.padding_token_id"],
        "torch_dtype": "float32",
    }


def moe_config(dense: Mapping[str, object], num_experts: int) -> dict[str, object]:
    """`config.json` of the split model, for `MixtralConfig`. Raises ValueError when the FFN does not divide."""
    width = cast(int, dense["intermediate_size"])
    if num_experts & (num_experts - 1) or width % num_experts:
        raise ValueError(f"an FFN of {width} neurons does not split exactly into {num_experts} experts")
    return {
        **dense,
        "architectures": ["MixtralForCausalLM"],
        "model_type": "mixtral",
        "intermediate_size": width // num_experts,
        "num_local_experts": num_experts,
        "num_experts_per_tok": num_experts,
        "sliding_window": None,
        "router_jitter_noise": 0.0,
        "output_router_logits": False,
    }


def dense_tensors(source: GgufFile) -> Iterator[NamedTensor]:
    """Weights under the names of transformers' Llama, float32, rotary halves in transformers' order."""
    heads = cast(int, source.settings["llama.attention.head_count"])
    kv_heads = cast(int, source.settings["llama.attention.head_count_kv"])
    for name in source:
        if name in _TOP_NAMES:
            yield _TOP_NAMES[name], source.tensor(name)
            continue
        _, layer, kind, suffix = name.split(".")
        tensor = source.tensor(name)
        if kind in ("attn_q", "attn_k"):
            tensor = _unpermute(tensor, heads if kind == "attn_q" else kv_heads)
        yield f"model.layers.{layer}.{_LAYER_NAMES[kind]}.{suffix}", tensor


def moe_tensors(dense: Iterator[NamedTensor], num_experts: int) -> Iterator[NamedTensor]:
    """The split model's weights under Mixtral's names. Keeps the order, adds a zero router per layer."""
    for name, tensor in dense:
        prefix, is_ffn, rest = name.partition(".mlp.")
        if not is_ffn:
            yield name, tensor
            continue
        moe = f"{prefix}.block_sparse_moe"
        if rest == "gate_proj.weight":
            yield f"{moe}.gate.weight", np.zeros((num_experts, tensor.shape[1]), np.float32)
            slot, slices = "w1", np.split(tensor, num_experts)
        elif rest == "up_proj.weight":
            slot, slices = "w3", np.split(tensor, num_experts)
        elif rest == "down_proj.weight":
            slot, slices = "w2", np.split(tensor * np.float32(num_experts), num_experts, axis=1)
        else:
            raise ValueError(f"unknown FFN weight {name}")
        for expert, part in enumerate(slices):
            yield f"{moe}.experts.{expert}.{slot}.weight", np.ascontiguousarray(part)


def _unpermute(weight: Array, heads: int) -> Array:
    """Rows of each head: (even, odd) pairs → first half, second half. Shape [heads · head_dim, hidden] stays."""
    half = weight.shape[0] // heads // 2
    return np.ascontiguousarray(weight.reshape(heads, half, 2, -1).swapaxes(1, 2).reshape(weight.shape))
