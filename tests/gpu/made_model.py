"""A model of DeepSeek-V2-Lite's width and three layers, weights from a seed: real tensors, which random weights made by
vLLM are not (those depend on how a model is split). Made on the GPU, about 3 GB in bfloat16.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from load_tests.bench.gpu_models import V2_LITE, write

LAYERS = 3
SHAPE = V2_LITE | {"num_hidden_layers": LAYERS}
HIDDEN, HEADS, LATENT, ROPE, NOPE, VALUE = 2048, 16, 512, 64, 128, 128
EXPERTS, WIDTH, SHARED, DENSE, VOCAB = 64, 1408, 2, 10944, 102400


def make(folder: Path, seed: int = 1) -> Path:
    """Write config, tokenizer and weights; the same for the same seed and kind of GPU."""
    write(folder, SHAPE)
    where = "cuda" if torch.cuda.is_available() else "cpu"
    source = torch.Generator(where).manual_seed(seed)

    def weight(rows: int, columns: int, size: float = 1.0) -> torch.Tensor:
        made = torch.randn(rows, columns, generator=source, device=where) * (size / columns**0.5)
        return made.to(torch.bfloat16).cpu()

    def ones(size: int) -> torch.Tensor:
        return torch.ones(size, dtype=torch.bfloat16)

    def ffn(name: str, width: int) -> dict[str, torch.Tensor]:
        return {
            f"{name}.gate_proj.weight": weight(width, HIDDEN),
            f"{name}.up_proj.weight": weight(width, HIDDEN),
            f"{name}.down_proj.weight": weight(HIDDEN, width),
        }

    tensors = {
        "model.embed_tokens.weight": weight(VOCAB, HIDDEN, HIDDEN**0.5),
        "lm_head.weight": weight(VOCAB, HIDDEN, 4.0),
        "model.norm.weight": ones(HIDDEN),
    }
    for number in range(LAYERS):
        layer = f"model.layers.{number}"
        tensors |= {
            f"{layer}.input_layernorm.weight": ones(HIDDEN),
            f"{layer}.post_attention_layernorm.weight": ones(HIDDEN),
            f"{layer}.self_attn.q_proj.weight": weight(HEADS * (NOPE + ROPE), HIDDEN),
            f"{layer}.self_attn.kv_a_proj_with_mqa.weight": weight(LATENT + ROPE, HIDDEN),
            f"{layer}.self_attn.kv_a_layernorm.weight": ones(LATENT),
            f"{layer}.self_attn.kv_b_proj.weight": weight(HEADS * (NOPE + VALUE), LATENT),
            f"{layer}.self_attn.o_proj.weight": weight(HIDDEN, HEADS * VALUE),
        }
        if number == 0:
            tensors |= ffn(f"{layer}.mlp", DENSE)
            continue
        tensors[f"{layer}.mlp.gate.weight"] = weight(EXPERTS, HIDDEN, 4.0)
        tensors |= ffn(f"{layer}.mlp.shared_experts", SHARED * WIDTH)
        for expert in range(EXPERTS):
            tensors |= ffn(f"{layer}.mlp.experts.{expert}", WIDTH)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
