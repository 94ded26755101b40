"""Writes small GGUF files, independently of the reader under test: struct calls in the order of the format."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray
from tokenizers.pre_tokenizers import ByteLevel

F32, F16, Q4_1, Q8_0 = 0, 1, 3, 8


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(value: object) -> tuple[int, bytes]:
    if isinstance(value, bool):
        return 7, struct.pack("<?", value)
    if isinstance(value, int):
        return 4, struct.pack("<I", value)
    if isinstance(value, float):
        return 6, struct.pack("<f", value)
    if isinstance(value, str):
        return 8, _string(value)
    assert isinstance(value, list)
    kinds = [_value(item) for item in value]
    kind = kinds[0][0] if kinds else 8
    return 9, struct.pack("<IQ", kind, len(value)) + b"".join(raw for _, raw in kinds)


def encode(tensor: NDArray[np.float32], kind: int) -> bytes:
    """The tensor's blocks. Q4_1 and Q8_0 round as llama.cpp does."""
    if kind == F32:
        return tensor.astype(np.float32).tobytes()
    if kind == F16:
        return tensor.astype(np.float16).tobytes()
    blocks = tensor.reshape(-1, 32)
    if kind == Q8_0:
        scale = (np.abs(blocks).max(axis=1) / 127).astype(np.float16)
        inverse = np.divide(
            1, scale.astype(np.float32), where=scale != 0, out=np.zeros(len(scale), np.float32)
        )
        quants = np.round(blocks * inverse[:, None]).astype(np.int8)
        return b"".join(s.tobytes() + q.tobytes() for s, q in zip(scale, quants, strict=True))
    low = blocks.min(axis=1).astype(np.float16)
    scale = ((blocks.max(axis=1) - blocks.min(axis=1)) / 15).astype(np.float16)
    inverse = np.divide(1, scale.astype(np.float32), where=scale != 0, out=np.zeros(len(scale), np.float32))
    quants = np.clip(np.round((blocks - low.astype(np.float32)[:, None]) * inverse[:, None]), 0, 15).astype(
        np.uint8
    )
    packed = quants[:, :16] | (quants[:, 16:] << 4)
    return b"".join(
        s.tobytes() + m.tobytes() + q.tobytes() for s, m, q in zip(scale, low, packed, strict=True)
    )


def gguf(settings: dict[str, object], tensors: dict[str, tuple[NDArray[np.float32], int]]) -> bytes:
    """A whole file. `tensors` map a name to (values, type)."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(settings))
    for key, value in settings.items():
        kind, raw = _value(value)
        head += _string(key) + struct.pack("<I", kind) + raw
    data = b""
    for name, (values, kind) in tensors.items():
        sizes = tuple(reversed(values.shape))
        head += _string(name) + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, kind, len(data))
        raw = encode(values, kind)
        data += raw + b"\0" * (-len(raw) % 32)
    return head + b"\0" * (-len(head) % 32) + data


def tiny_llama(
    layers: int = 2, hidden: int = 64, width: int = 128, heads: int = 4, kv_heads: int = 2
) -> bytes:
    """A random Llama of SmolLM's kind with a tokenizer of 260 entries."""
    rng = np.random.default_rng(7)

    def weight(*shape: int) -> NDArray[np.float32]:
        return rng.normal(0, 0.3, shape).astype(np.float32)

    head_dim = hidden // heads
    tensors: dict[str, tuple[NDArray[np.float32], int]] = {"token_embd.weight": (weight(260, hidden), Q8_0)}
    for layer in range(layers):
        shapes = {
            "attn_norm": (hidden,), "ffn_norm": (hidden,), "attn_q": (hidden, hidden),
            "attn_k": (kv_heads * head_dim, hidden), "attn_v": (kv_heads * head_dim, hidden),
            "attn_output": (hidden, hidden), "ffn_gate": (width, hidden), "ffn_up": (width, hidden),
            "ffn_down": (hidden, width),
        }  # fmt: skip
        for name, shape in shapes.items():
            kind = F32 if len(shape) == 1 else Q4_1
            tensors[f"blk.{layer}.{name}.weight"] = (weight(*shape) + (len(shape) == 1), kind)
    tensors["output_norm.weight"] = (weight(hidden) + 1, F32)
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *sorted(ByteLevel.alphabet()), "ab"]
    settings: dict[str, object] = {
        "general.architecture": "llama",
        "llama.block_count": layers,
        "llama.context_length": 256,
        "llama.embedding_length": hidden,
        "llama.feed_forward_length": width,
        "llama.attention.head_count": heads,
        "llama.attention.head_count_kv": kv_heads,
        "llama.rope.freq_base": 10000.0,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.vocab_size": len(tokens),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3, 3, 3, *(1 for _ in tokens[3:])],
        "tokenizer.ggml.merges": ["a b"],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.padding_token_id": 2,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": "{{ messages[0]['content'] }}",
    }
    return gguf(settings, tensors)
