"""A GGUF file's byte-level BPE tokenizer as the JSON files that `tokenizers` and transformers read. Pure.

Rules: settings in, plain dicts out. Only the pre-tokenizer `smollm` is known (digits one by one, then GPT-2's
byte-level words); another one is a ValueError, since a wrong cut gives wrong answers without an error.
"""

from __future__ import annotations

from typing import cast

from .gguf_file import GgufFile

_CONTROL = 3
"""llama.cpp's token type for special tokens."""


def tokenizer_json(source: GgufFile) -> dict[str, object]:
    """`tokenizer.json`. Raises ValueError for a tokenizer that is not SmolLM's kind."""
    settings = source.settings
    kind = (settings.get("tokenizer.ggml.model"), settings.get("tokenizer.ggml.pre"))
    if kind != ("gpt2", "smollm"):
        raise ValueError(f"unknown tokenizer {kind}")
    tokens = cast(list[str], settings["tokenizer.ggml.tokens"])
    types = cast(list[int], settings["tokenizer.ggml.token_type"])
    merges = cast(list[str], settings["tokenizer.ggml.merges"])
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": i, "content": tokens[i], **_PLAIN, "special": True}
            for i, token_type in enumerate(types)
            if token_type == _CONTROL
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level],
        },
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": [merge.split(" ", 1) for merge in merges],
        },
    }


_PLAIN = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}


def tokenizer_config(source: GgufFile, max_tokens: int) -> dict[str, object]:
    """`tokenizer_config.json`: which ids are special, and the chat template."""
    tokens = cast(list[str], source.settings["tokenizer.ggml.tokens"])

    def named(key: str) -> str:
        return tokens[cast(int, source.settings[f"tokenizer.ggml.{key}_token_id"])]

    return {
        # The generic class takes tokenizer.json as it is; GPT2Tokenizer would put its own pre-tokenizer in.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": named("bos"),
        "eos_token": named("eos"),
        "unk_token": named("unknown"),
        "pad_token": named("padding"),
        "clean_up_tokenization_spaces": False,
        "model_max_length": max_tokens,
        "chat_template": chat_template(source),
    }


def chat_template(source: GgufFile) -> str:
    """The Jinja chat template."""
    return cast(str, source.settings["tokenizer.chat_template"])
