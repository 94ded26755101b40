"""A dense Llama model as a sparse mixture of experts that approximates it. Pure: arrays in and out.

Rules: knows names, shapes and the arithmetic; reads no file, knows no torch, trains nothing (load_tests/distill
does). The plan:

1. Per layer, `order` sorts the FFN's neurons: first those of the shared expert, which every token uses, then the
   routed experts one after another. A token uses `chosen` of them.
2. The router is linear. An expert's score is the sigmoid of its logit; the `chosen` best are added up, each times
   its score times `scale` (DeepSeek-V3's routing without groups, and a correction bias of zero).
3. What training changed is small: weight = dense weight + b · a, of low rank; the norms are kept whole.
   The factors are 8-bit integers, one scale per rank: b · a = Σ_r (b[:, r] · b_scale[r]) (a[r] · a_scale[r]).
4. Sums are taken in float64 and rounded to float16, so that every machine writes the same bytes.

The result has the architecture `Glm4MoeForCausalLM`: plain grouped-query attention without biases as Llama has,
a shared expert without a gate, sigmoid routing. vLLM and transformers load it as it is; the head is written out,
since vLLM's GLM does not tie it to the embedding (0.32 would serve a head of zeros).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from .expert_split import NamedTensor

Corrections = Mapping[str, NDArray[Any]]

MATRICES = {
    "self_attn.q_proj": "q",
    "self_attn.k_proj": "k",
    "self_attn.v_proj": "v",
    "self_attn.o_proj": "o",
    "mlp.gate_proj": "gate",
    "mlp.up_proj": "up",
    "mlp.down_proj": "down",
}
"""Name in the dense model → name among the corrections, of what is corrected by b · a."""

_NORMS = {"input_layernorm": "norm1", "post_attention_layernorm": "norm2"}


@dataclass(frozen=True)
class SparsePlan:
    """How an FFN is cut: `num_shared` neurons for every token, `chosen` of `num_experts` experts of `expert_width`."""

    num_shared: int
    num_experts: int
    expert_width: int
    chosen: int
    scale: float

    @property
    def width(self) -> int:
        """All neurons."""
        return self.num_shared + self.num_experts * self.expert_width

    @property
    def active_share(self) -> float:
        """Share of the neurons that a token uses."""
        return (self.num_shared + self.chosen * self.expert_width) / self.width

    def to_json(self) -> str:
        """As the corrections' file carries it."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> SparsePlan:
        """Raises ValueError when a field is missing, unknown or not positive."""
        try:
            plan = SparsePlan(**json.loads(text))
        except TypeError as error:
            raise ValueError(f"no plan of a sparse model: {error}") from error
        if min(asdict(plan).values()) <= 0 or plan.num_shared % plan.expert_width:
            raise ValueError(f"no plan of a sparse model: {text}")
        return plan


def sparse_config(dense: Mapping[str, object], plan: SparsePlan) -> dict[str, object]:
    """`config.json` for `Glm4MoeConfig`. Raises ValueError when the plan is not for this model."""
    if not dense["tie_word_embeddings"]:
        raise ValueError("the dense model has a head of its own, which the corrections do not know")
    if dense["intermediate_size"] != plan.width:
        raise ValueError(f"the plan cuts {plan.width} neurons, the FFN has {dense['intermediate_size']}")
    kept = {key: value for key, value in dense.items() if key != "rope_theta"}
    return {
        **kept,
        "architectures": ["Glm4MoeForCausalLM"],
        "model_type": "glm4_moe",
        "moe_intermediate_size": plan.expert_width,
        "n_routed_experts": plan.num_experts,
        "n_shared_experts": plan.num_shared // plan.expert_width,
        "num_experts_per_tok": plan.chosen,
        "routed_scaling_factor": plan.scale,
        "norm_topk_prob": False,
        "n_group": 1,
        "topk_group": 1,
        "first_k_dense_replace": 0,
        "num_nextn_predict_layers": 0,
        "use_qk_norm": False,
        "attention_bias": False,
        "tie_word_embeddings": False,
        # GLM turns half of each head; Llama, and so this model, turns all of it.
        "partial_rotary_factor": 1.0,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": dense["rope_theta"],
            "partial_rotary_factor": 1.0,
        },
        "torch_dtype": "float16",
    }


def sparse_tensors(
    dense: Iterator[NamedTensor], plan: SparsePlan, corrections: Corrections
) -> Iterator[tuple[str, NDArray[Any]]]:
    """The sparse model's weights under GLM's names, float16 (the router float32). Keeps the dense order."""
    for name, tensor in dense:
        parts = name.removesuffix(".weight").split(".")
        if parts[1] != "layers":
            yield name, (corrections["norm"] if name == "model.norm.weight" else tensor).astype(np.float16)
            if name == "model.embed_tokens.weight":
                yield "lm_head.weight", tensor.astype(np.float16)
            continue
        layer, kind = int(parts[2]), ".".join(parts[3:])
        prefix = f"model.layers.{layer}"
        if kind in _NORMS:
            yield name, corrections[_NORMS[kind]][layer].astype(np.float16)
            continue
        short = MATRICES[kind]
        order = corrections["order"][layer].astype(np.int64)
        if short == "down":
            tensor = tensor[:, order]
        elif short in ("gate", "up"):
            tensor = tensor[order]
        fixed = (tensor.astype(np.float64) + correction(corrections, short, layer)).astype(np.float16)
        if not kind.startswith("mlp."):
            yield name, fixed
            continue
        if short == "gate":
            yield f"{prefix}.mlp.gate.weight", corrections["router"][layer].astype(np.float32)
            yield f"{prefix}.mlp.gate.e_score_correction_bias", np.zeros(plan.num_experts, np.float32)
        yield from _experts(f"{prefix}.mlp", kind.removeprefix("mlp."), fixed, plan)


def correction(corrections: Corrections, short: str, layer: int) -> NDArray[np.float64]:
    """b · a of one matrix, [out, in] in the corrected order."""

    def factor(side: str) -> NDArray[np.float64]:
        return corrections[f"{short}.{side}"][layer].astype(np.float64)

    scale = factor("a_scale") * factor("b_scale")
    return (factor("b") * scale) @ factor("a")


def check(corrections: Corrections, plan: SparsePlan, dense: Mapping[str, object]) -> None:
    """Raises ValueError, naming the tensor, when the corrections are not for this model and plan."""
    layers, hidden = cast(int, dense["num_hidden_layers"]), cast(int, dense["hidden_size"])
    heads = cast(int, dense["num_attention_heads"]) * cast(int, dense["head_dim"])
    kv_heads = cast(int, dense["num_key_value_heads"]) * cast(int, dense["head_dim"])
    wanted: dict[str, tuple[int, ...]] = {
        "order": (layers, plan.width),
        "router": (layers, plan.num_experts, hidden),
        "norm1": (layers, hidden),
        "norm2": (layers, hidden),
        "norm": (hidden,),
    }
    sizes = {"q": (heads, hidden), "k": (kv_heads, hidden), "v": (kv_heads, hidden), "o": (hidden, heads)}
    sizes |= {"gate": (plan.width, hidden), "up": (plan.width, hidden), "down": (hidden, plan.width)}
    for short, (out, into) in sizes.items():
        rank = corrections[f"{short}.a"].shape[1] if f"{short}.a" in corrections else 0
        wanted |= {f"{short}.a": (layers, rank, into), f"{short}.b": (layers, out, rank)}
        wanted |= {f"{short}.a_scale": (layers, rank), f"{short}.b_scale": (layers, rank)}
    found = {name: tensor.shape for name, tensor in corrections.items()}
    if found != wanted:
        wrong = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
        raise ValueError(f"corrections of another model: {', '.join(wrong)}")
    if not (np.sort(corrections["order"], axis=1) == np.arange(plan.width)).all():
        raise ValueError("corrections of another model: order is no permutation")


def _experts(
    prefix: str, kind: str, tensor: NDArray[Any], plan: SparsePlan
) -> Iterator[tuple[str, NDArray[Any]]]:
    axis = 1 if kind == "down_proj" else 0
    shared, routed = np.split(tensor, [plan.num_shared], axis=axis)
    yield f"{prefix}.shared_experts.{kind}.weight", np.ascontiguousarray(shared)
    for expert, part in enumerate(np.split(routed, plan.num_experts, axis=axis)):
        yield f"{prefix}.experts.{expert}.{kind}.weight", np.ascontiguousarray(part)
