"""Splitting an FFN into experts computes the same function.

1. The sum over all experts, each weighted 1/E with w2 times E, is the dense FFN (up to the order of one sum).
2. Every neuron is in exactly one expert; nothing outside the FFNs changes.
3. Undoing llama.cpp's rotary order is a permutation of rows inside each head.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.experts import expert_split
from services.experts.gguf_file import GgufFile
from tests.unit.experts.gguf_writer import tiny_llama

SOURCE = GgufFile(tiny_llama())
DENSE = dict(expert_split.dense_tensors(SOURCE))


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


MOE = {n: dict(expert_split.moe_tensors(iter(DENSE.items()), n)) for n in (1, 2, 4, 8)}


@given(st.sampled_from([1, 2, 4, 8]), st.integers(0, 1), st.integers(0, 2**31))
@settings(max_examples=30)
def test_the_experts_sum_to_the_dense_ffn(experts: int, layer: int, seed: int) -> None:
    moe = MOE[experts]
    x = np.random.default_rng(seed).normal(size=64)
    mlp, block = f"model.layers.{layer}.mlp", f"model.layers.{layer}.block_sparse_moe"

    def weight(name: str) -> np.ndarray:
        return (DENSE | moe)[f"{name}.weight"].astype(np.float64)

    dense = weight(f"{mlp}.down_proj") @ (
        silu(weight(f"{mlp}.gate_proj") @ x) * (weight(f"{mlp}.up_proj") @ x)
    )
    router = moe[f"{block}.gate.weight"]
    assert router.shape == (experts, 64)
    assert not router.any()
    total = sum(
        weight(f"{block}.experts.{e}.w2")
        @ (silu(weight(f"{block}.experts.{e}.w1") @ x) * (weight(f"{block}.experts.{e}.w3") @ x))
        / experts
        for e in range(experts)
    )
    np.testing.assert_allclose(total, dense, rtol=1e-9, atol=1e-9)


def test_what_is_no_ffn_stays() -> None:
    moe = dict(expert_split.moe_tensors(iter(DENSE.items()), 4))
    outside = {name for name in DENSE if ".mlp." not in name}
    assert outside == {name for name in moe if ".block_sparse_moe." not in name}
    for name in outside:
        np.testing.assert_array_equal(moe[name], DENSE[name])


def test_rotary_rows_are_permuted_inside_their_head() -> None:
    stored = SOURCE.tensor("blk.0.attn_q.weight")
    found = DENSE["model.layers.0.self_attn.q_proj.weight"]
    for head in range(4):
        rows = stored[head * 16 : head * 16 + 16]
        np.testing.assert_array_equal(
            found[head * 16 : head * 16 + 16], np.concatenate([rows[::2], rows[1::2]])
        )


def test_configs_say_what_the_tensors_are() -> None:
    dense = expert_split.dense_config(SOURCE)
    moe = expert_split.moe_config(dense, 8)
    assert dense["tie_word_embeddings"] is True
    assert dense["rms_norm_eps"] == 1e-05
    assert (moe["model_type"], moe["intermediate_size"], moe["num_local_experts"]) == ("mixtral", 16, 8)
    assert moe["num_experts_per_tok"] == 8


@pytest.mark.parametrize("experts", [3, 6, 256])
def test_an_inexact_split_is_refused(experts: int) -> None:
    with pytest.raises(ValueError, match="does not split exactly"):
        expert_split.moe_config(expert_split.dense_config(SOURCE), experts)
