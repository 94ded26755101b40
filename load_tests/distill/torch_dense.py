"""SmolLM2 in plain PyTorch: the teacher's forward pass.

Rules: the dense model only; no routing. A layer is a tuple of tensors, so that one compiled function serves all
layers. Matrix products run in the weights' type, the residual stream and the norms in float32.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from services.experts import expert_split
from services.experts.gguf_file import GgufFile


class Layer(NamedTuple):
    """One layer's weights, [out, in] each; norms [hidden]."""

    norm1: Tensor
    q: Tensor
    k: Tensor
    v: Tensor
    o: Tensor
    norm2: Tensor
    gate: Tensor
    up: Tensor
    down: Tensor


DenseLayer = Callable[[Tensor, Layer, "Shape", "tuple[Tensor, Tensor]"], "tuple[Tensor, Tensor]"]

_NAMES = (
    "input_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "post_attention_layernorm", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
)  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """What the arithmetic needs of the config."""

    heads: int
    kv_heads: int
    head_dim: int
    eps: float
    theta: float
    vocab: int


@dataclass(frozen=True)
class Dense:
    """The model on one device: embedding (tied) [vocab, hidden], layers, final norm."""

    shape: Shape
    embed: Tensor
    layers: tuple[Layer, ...]
    norm: Tensor

    def to(self, device: str, dtype: torch.dtype) -> Dense:
        """Matrices in `dtype`, norms in float32."""

        def put(t: Tensor) -> Tensor:
            return t.to(device, dtype if t.dim() > 1 else torch.float32)

        layers = tuple(Layer(*map(put, layer)) for layer in self.layers)
        return Dense(self.shape, put(self.embed), layers, put(self.norm))


def load(path: Path, num_layers: int | None = None) -> Dense:
    """The pinned GGUF file as float32 tensors on the CPU."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        source = GgufFile(memoryview(mapped))
        config = expert_split.dense_config(source)
        tensors = {name: torch.from_numpy(value) for name, value in expert_split.dense_tensors(source)}
        source.close()
    return from_tensors(config, tensors, num_layers)


def from_tensors(config: dict[str, object], tensors: dict[str, Tensor], num_layers: int | None) -> Dense:
    """The same from named tensors."""
    shape = Shape(
        heads=_int(config, "num_attention_heads"),
        kv_heads=_int(config, "num_key_value_heads"),
        head_dim=_int(config, "head_dim"),
        eps=float(str(config["rms_norm_eps"])),
        theta=float(str(config["rope_theta"])),
        vocab=_int(config, "vocab_size"),
    )
    layers = tuple(
        Layer(*(tensors[f"model.layers.{i}.{name}.weight"] for name in _NAMES))
        for i in range(num_layers or _int(config, "num_hidden_layers"))
    )
    return Dense(shape, tensors["model.embed_tokens.weight"], layers, tensors["model.norm.weight"])


def _int(config: dict[str, object], name: str) -> int:
    value = config[name]
    assert isinstance(value, int)
    return value


def rms(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMS norm in float32."""
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


def rope_table(shape: Shape, length: int, device: str) -> tuple[Tensor, Tensor]:
    """cos and sin [length, head_dim], halves repeated as transformers does."""
    inverse = shape.theta ** (-torch.arange(0, shape.head_dim, 2, device=device).float() / shape.head_dim)
    angle = torch.arange(length, device=device).float()[:, None] * inverse
    angle = torch.cat((angle, angle), -1)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x [..., length, head_dim]."""
    a, b = x.chunk(2, -1)
    return (x.float() * cos + torch.cat((-b, a), -1).float() * sin).to(x.dtype)


def attention(
    x: Tensor, q: Tensor, k: Tensor, v: Tensor, o: Tensor, s: Shape, rope: tuple[Tensor, Tensor]
) -> Tensor:
    """Causal attention over x [batch, length, hidden], already normed."""
    batch, length, _ = x.shape

    def split(weight: Tensor, heads: int) -> Tensor:
        return F.linear(x, weight).view(batch, length, heads, s.head_dim).transpose(1, 2)

    queries = rotate(split(q, s.heads), *rope)
    keys, values = rotate(split(k, s.kv_heads), *rope), split(v, s.kv_heads)
    mixed = F.scaled_dot_product_attention(queries, keys, values, is_causal=True, enable_gqa=True)
    return F.linear(mixed.transpose(1, 2).reshape(batch, length, -1), o)


def neurons(x: Tensor, gate: Tensor, up: Tensor) -> Tensor:
    """What each neuron of the FFN says."""
    return F.silu(F.linear(x, gate)) * F.linear(x, up)


def dense_layer(x: Tensor, w: Layer, s: Shape, rope: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """(residual stream after the layer, normed input of its FFN)."""
    x = x + attention(rms(x, w.norm1, s.eps).to(w.q.dtype), w.q, w.k, w.v, w.o, s, rope).float()
    h = rms(x, w.norm2, s.eps).to(w.gate.dtype)
    return x + F.linear(neurons(h, w.gate, w.up), w.down).float(), h


def hidden_states(
    model: Dense, ids: Tensor, layer_fn: DenseLayer = dense_layer
) -> Iterator[tuple[Tensor, Tensor]]:
    """Per layer: (residual stream after it, its FFN's normed input)."""
    x = F.embedding(ids, model.embed).float()
    rope = rope_table(model.shape, ids.shape[1], str(ids.device))
    for layer in model.layers:
        x, h = layer_fn(x, layer, model.shape, rope)
        yield x, h


def final(model: Dense, x: Tensor) -> Tensor:
    """The normed hidden state that the (tied) head reads, in the head's type."""
    return rms(x, model.norm, model.shape.eps).to(model.embed.dtype)
