"""The formulas against what the models' makers publish, and against what was measured on GPUs."""

from __future__ import annotations

import pytest

from services.errors import ConfigError
from services.experts.sizing import GPUS, kv_bytes_per_token, size, smallest_group, weights

V2_LITE = {
    "model_type": "deepseek_v2", "hidden_size": 2048, "num_hidden_layers": 27, "num_attention_heads": 16,
    "num_key_value_heads": 16, "vocab_size": 102400, "intermediate_size": 10944, "moe_intermediate_size": 1408,
    "n_routed_experts": 64, "n_shared_experts": 2, "num_experts_per_tok": 6, "first_k_dense_replace": 1,
    "kv_lora_rank": 512, "q_lora_rank": None, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128,
}  # fmt: skip
V2 = V2_LITE | {
    "hidden_size": 5120, "num_hidden_layers": 60, "num_attention_heads": 128, "intermediate_size": 12288,
    "moe_intermediate_size": 1536, "n_routed_experts": 160, "q_lora_rank": 1536,
}  # fmt: skip
V3 = V2 | {
    "model_type": "deepseek_v3", "hidden_size": 7168, "num_hidden_layers": 61, "vocab_size": 129280,
    "intermediate_size": 18432, "moe_intermediate_size": 2048, "n_routed_experts": 256, "n_shared_experts": 1,
    "num_experts_per_tok": 8, "first_k_dense_replace": 3,
}  # fmt: skip
MIXTRAL = {
    "model_type": "mixtral", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "vocab_size": 32000, "intermediate_size": 14336, "num_local_experts": 8,
    "num_experts_per_tok": 2,
}  # fmt: skip
QWEN3_30B = {
    "model_type": "qwen3_moe", "hidden_size": 2048, "num_hidden_layers": 48, "num_attention_heads": 32,
    "num_key_value_heads": 4, "head_dim": 128, "vocab_size": 151936, "intermediate_size": 6144,
    "moe_intermediate_size": 768, "num_experts": 128, "num_experts_per_tok": 8,
}  # fmt: skip
QWEN3_235B = QWEN3_30B | {
    "hidden_size": 4096, "num_hidden_layers": 94, "num_attention_heads": 64, "intermediate_size": 12288,
    "moe_intermediate_size": 1536,
}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "total", "active"),
    [
        (V2_LITE, 15.7e9, 2.66e9),
        (V2, 235.7e9, 21.4e9),
        (V3, 671.0e9, 37.6e9),
        (MIXTRAL, 46.7e9, 12.9e9),
        (QWEN3_30B, 30.5e9, 3.3e9),
        (QWEN3_235B, 235.1e9, 22.2e9),
    ],
    ids=["V2-Lite", "V2", "V3", "Mixtral", "Qwen3-30B", "Qwen3-235B"],
)
def test_weights_are_what_the_makers_publish(config: dict[str, object], total: float, active: float) -> None:
    found = weights(config)
    assert found.total == pytest.approx(total, rel=0.01)
    assert found.per_token == pytest.approx(active, rel=0.03)


def test_latent_attention_caches_little() -> None:
    assert kv_bytes_per_token(V3) == 61 * 576 * 2
    assert kv_bytes_per_token(V3, tensor_parallel=8) == kv_bytes_per_token(V3)
    assert kv_bytes_per_token(MIXTRAL) == 32 * 2 * 8 * 128 * 2
    assert kv_bytes_per_token(MIXTRAL, tensor_parallel=2) == kv_bytes_per_token(MIXTRAL) / 2
    assert kv_bytes_per_token(MIXTRAL, tensor_parallel=16) == kv_bytes_per_token(MIXTRAL) / 8


def test_more_ranks_hold_fewer_weights_and_redundancy_costs_what_it_holds() -> None:
    one, two = size(V2_LITE, GPUS["H100"]), size(V2_LITE, GPUS["H100"], data_parallel=2)
    assert two.weight_bytes < one.weight_bytes
    experts = weights(V2_LITE)
    spread = experts.moe_layers * experts.num_experts * experts.expert * 2.0
    assert one.weight_bytes - two.weight_bytes == pytest.approx(spread / 2)
    more = size(V2_LITE, GPUS["H100"], data_parallel=2, redundant_experts=8)
    assert more.weight_bytes - two.weight_bytes == pytest.approx(spread / 2 * 8 / 64)


def test_limits_are_above_what_was_reached() -> None:
    """Measured on two H100s with V2-Lite's shape: 15,331 output tokens per second at 512 streams, DP2 + EP2."""
    reached = size(V2_LITE, GPUS["H100"], data_parallel=2, batch=512, context_tokens=576)
    assert reached.tokens_per_s > 15_331


def test_the_smallest_group_that_fits() -> None:
    assert smallest_group(V2_LITE, GPUS["H100"]) == 1
    assert smallest_group(V2_LITE, GPUS["A10G"]) == 4
    assert smallest_group(V3, GPUS["H100"], bytes_per_weight=1.0) == 16
    assert smallest_group(V3, GPUS["A10G"]) is None


def test_a_config_that_lacks_a_shape_is_told() -> None:
    with pytest.raises(ConfigError, match="hidden_size"):
        weights({"num_hidden_layers": 3})
