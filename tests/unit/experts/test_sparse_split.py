"""Cutting an FFN into a shared expert and routed ones.

1. Whatever the order of the neurons, a layer whose experts are all chosen with weight 1 computes the dense FFN (up to
   float16), since every neuron is in exactly one place.
2. A correction is the product of its factors, each rank times its two scales.
3. Corrections of another model, and plans that make no sense, are refused by name.
4. What training packs, the split unpacks: within half a step of each rank's scale.
5. Moving whole experts changes nothing; the order for ranks is a permutation that evens out loads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from load_tests.distill import corrections as kept
from services.experts import expert_split, sparse_split
from services.experts.gguf_file import GgufFile
from services.experts.sparse_split import SparsePlan
from tests.unit.experts.gguf_writer import tiny_llama

SOURCE = GgufFile(tiny_llama())
DENSE = dict(expert_split.dense_tensors(SOURCE))
CONFIG = expert_split.dense_config(SOURCE)
PLAN = SparsePlan(num_shared=32, num_experts=6, expert_width=16, chosen=6, scale=2.0)
LAYERS, HIDDEN, WIDTH = 2, 64, 128


def trained(seed: int, size: float) -> list[dict[str, NDArray[np.float32]]]:
    """Layers as training leaves them: random factors of `size`, norms as they were, a router of zero."""
    rng = np.random.default_rng(seed)
    layers: list[dict[str, NDArray[np.float32]]] = []
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}"
        arrays = {
            "norm1": DENSE[f"{prefix}.input_layernorm.weight"],
            "norm2": DENSE[f"{prefix}.post_attention_layernorm.weight"],
            "router": np.zeros((PLAN.num_experts, HIDDEN), np.float32),
        }
        for name, short in sparse_split.MATRICES.items():
            out, into = DENSE[f"{prefix}.{name}.weight"].shape
            arrays[f"{short}_a"] = rng.normal(size=(4, into)).astype(np.float32)
            arrays[f"{short}_b"] = (rng.normal(size=(out, 4)) * size).astype(np.float32)
        layers.append(arrays)
    return layers


def packed(seed: int = 0, size: float = 0.0) -> dict[str, NDArray[Any]]:
    orders = [np.random.default_rng(seed + layer).permutation(WIDTH) for layer in range(LAYERS)]
    return kept.pack(orders, trained(seed, size), DENSE["model.norm.weight"])


def ffn(gate: NDArray[Any], up: NDArray[Any], down: NDArray[Any], x: NDArray[Any]) -> NDArray[Any]:
    gate, up, down = (one.astype(np.float64) for one in (gate, up, down))
    return down @ ((gate @ x) / (1 + np.exp(-(gate @ x))) * (up @ x))


def served(weights: dict[str, NDArray[Any]], layer: int, x: NDArray[Any]) -> NDArray[Any]:
    """The layer's FFN as an engine computes it."""
    mlp = f"model.layers.{layer}.mlp"

    def expert(name: str) -> NDArray[Any]:
        return ffn(*(weights[f"{mlp}.{name}.{kind}_proj.weight"] for kind in ("gate", "up", "down")), x)

    scores = 1 / (1 + np.exp(-weights[f"{mlp}.gate.weight"] @ x))
    chosen = np.argsort(-(scores + weights[f"{mlp}.gate.e_score_correction_bias"]))[: PLAN.chosen]
    routed = sum(PLAN.scale * scores[e] * expert(f"experts.{e}") for e in chosen)
    return expert("shared_experts") + routed


@given(st.integers(0, 2**31), st.integers(0, 1))
@settings(max_examples=20)
def test_all_experts_together_are_the_dense_ffn(seed: int, layer: int) -> None:
    weights = dict(sparse_split.sparse_tensors(iter(DENSE.items()), PLAN, packed(seed)))
    x = np.random.default_rng(seed).normal(size=HIDDEN)
    mlp = f"model.layers.{layer}.mlp"
    dense = ffn(*(DENSE[f"{mlp}.{kind}_proj.weight"] for kind in ("gate", "up", "down")), x)
    assert np.abs(served(weights, layer, x) - dense).max() < 4e-3 * np.abs(dense).max()


def test_what_is_not_an_ffn_stays() -> None:
    weights = dict(sparse_split.sparse_tensors(iter(DENSE.items()), PLAN, packed()))
    outside = {name for name in DENSE if ".mlp." not in name}
    assert {name for name in weights if ".mlp." not in name} == outside | {"lm_head.weight"}
    assert np.array_equal(weights["lm_head.weight"], weights["model.embed_tokens.weight"])
    assert all(np.array_equal(weights[name], DENSE[name].astype(np.float16)) for name in outside)
    assert len(weights) == 1 + len(outside) + LAYERS * (2 + 3 * (PLAN.num_experts + 1))


def test_a_correction_is_added_to_the_moved_weight() -> None:
    corrections, layer = packed(3, size=0.1), trained(3, 0.1)[1]
    product = layer["down_b"].astype(np.float64) @ layer["down_a"]
    assert (
        np.abs(sparse_split.correction(corrections, "down", 1) - product).max() < 0.02 * np.abs(product).max()
    )
    weights = dict(sparse_split.sparse_tensors(iter(DENSE.items()), PLAN, corrections))
    moved = DENSE["model.layers.1.mlp.down_proj.weight"][:, corrections["order"][1]]
    wanted = moved + sparse_split.correction(corrections, "down", 1)
    found = weights["model.layers.1.mlp.shared_experts.down_proj.weight"]
    assert np.array_equal(found, wanted[:, : PLAN.num_shared].astype(np.float16))


@given(st.integers(0, 2**31), st.sampled_from([0, 1]))
@settings(max_examples=30)
def test_packing_errs_by_half_a_step(seed: int, axis: int) -> None:
    factor = np.random.default_rng(seed).normal(size=(5, 7)).astype(np.float32)
    integers, scale = kept.pack_factor(factor, axis)
    spread = np.expand_dims(scale, 1 - axis)
    assert (np.abs(integers * spread - factor) <= spread * 0.5001).all()


@given(st.lists(st.floats(0, 1), min_size=8, max_size=8))
@settings(max_examples=50)
def test_ranks_carry_even_loads(loads: list[float]) -> None:
    order = kept.rank_order(np.array(loads))
    assert sorted(order) == list(range(8))
    parts = np.array(loads)[order].reshape(4, 2).sum(1)
    assert parts.max() - parts.min() <= max(loads)
    assert abs(parts[:2].sum() - parts[2:].sum()) <= max(loads)


@given(st.integers(0, 2**31))
@settings(max_examples=20)
def test_moving_experts_changes_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    layers = trained(seed, 0.05)
    layers[0]["router"] = rng.normal(size=(PLAN.num_experts, HIDDEN)).astype(np.float32)
    orders = [rng.permutation(WIDTH) for _ in layers]
    order, moved = kept.move_experts(orders[0], layers[0], rng.permutation(PLAN.num_experts), PLAN)
    x = rng.normal(size=HIDDEN)
    before, after = (
        served(dict(sparse_split.sparse_tensors(iter(DENSE.items()), PLAN, corrections)), 0, x)
        for corrections in (
            kept.pack(orders, layers, DENSE["model.norm.weight"]),
            kept.pack([order, orders[1]], [moved, layers[1]], DENSE["model.norm.weight"]),
        )
    )
    assert np.allclose(before, after, rtol=0, atol=1e-9 * np.abs(before).max())


def test_the_config_is_llamas_attention_with_routed_experts() -> None:
    config = sparse_split.sparse_config(CONFIG, PLAN)
    assert config["model_type"] == "glm4_moe"
    assert (config["n_shared_experts"], config["n_routed_experts"], config["num_experts_per_tok"]) == (
        2,
        6,
        6,
    )
    assert config["rope_parameters"] == {
        "rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0,
    }  # fmt: skip
    assert "rope_theta" not in config
    assert config["tie_word_embeddings"] is False
    with pytest.raises(ValueError, match="a head of its own"):
        sparse_split.sparse_config({**CONFIG, "tie_word_embeddings": False}, PLAN)
    with pytest.raises(ValueError, match="the plan cuts 64 neurons, the FFN has 128"):
        sparse_split.sparse_config(CONFIG, SparsePlan(32, 2, 16, 1, 1.0))


def test_a_sound_file_passes_and_a_foreign_one_is_named() -> None:
    sound = packed()
    sparse_split.check(sound, PLAN, CONFIG)
    for name, change in (
        ("router", sound["router"][:, :5]), ("q.a", sound["q.a"][:, :, :3]), ("norm", sound["norm"][:9]),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"another model: .*{name}"):
            sparse_split.check({**sound, name: change}, PLAN, CONFIG)
    with pytest.raises(ValueError, match=r"up\.b"):
        sparse_split.check({n: t for n, t in sound.items() if n != "up.b"}, PLAN, CONFIG)
    twice = sound["order"].copy()
    twice[0, 0] = twice[0, 1]
    with pytest.raises(ValueError, match="no permutation"):
        sparse_split.check({**sound, "order": twice}, PLAN, CONFIG)


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"num_shared": 32, "num_experts": 0, "expert_width": 16, "chosen": 6, "scale": 2.0}',
        '{"num_shared": 33, "num_experts": 6, "expert_width": 16, "chosen": 6, "scale": 2.0}',
        '{"num_shared": 32, "num_experts": 6, "expert_width": 16, "chosen": 6, "scale": 2.0, "more": 1}',
    ],
)
def test_a_plan_without_sense_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no plan of a sparse model"):
        SparsePlan.from_json(text)


def test_a_plan_survives_its_file() -> None:
    assert SparsePlan.from_json(PLAN.to_json()) == PLAN
    assert SparsePlan(256, 40, 32, 16, 1.5).active_share == 0.5
