"""Small tokenizers made on the spot, of the two families that models use, in model directories."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

CHATML = (
    "{% for m in messages %}{{'<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CORPUS = [
    "hello world, 你好世界, καλημέρα",
    "the cat sat on the mat 🐈",
    "{'a': 1}\n\n\tdef f(x): return x",
] * 3


def byte_level() -> Tokenizer:
    """As GPT-2's family has it; trained once, a fresh object for each caller."""
    return Tokenizer.from_str(_trained())


@cache
def _trained() -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_tokens(["<tool_call>"])
    return tokenizer.to_str()


def sentence_piece() -> Tokenizer:
    """As Llama 2's family has it: spaces as ▁, unknown characters as bytes."""
    words = [
        "<s>",
        "</s>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "▁",
        "▁hello",
        "h",
        "e",
        "l",
        "o",
        "▁你",
        "好",
    ]
    tokenizer = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, [], byte_fallback=True))
    tokenizer.decoder = decoders.Sequence([
        decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0),
    ])  # fmt: skip
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return tokenizer


def id_of(library: Tokenizer, token: str) -> int:
    found = library.token_to_id(token)
    assert found is not None
    return found


def save(
    directory: Path,
    library: Tokenizer,
    *,
    template: str | None = CHATML,
    settings: dict[str, object] | None = None,
    files: dict[str, object] | None = None,
) -> Path:
    """A model directory; `files` are further JSON files by name, `settings` go into tokenizer_config.json."""
    library.save(str(directory / "tokenizer.json"))
    told = {"eos_token": "<|im_end|>", "bos_token": {"content": "<s>"}, **(settings or {})}
    (directory / "tokenizer_config.json").write_text(json.dumps(told))
    if template is not None:
        (directory / "chat_template.jinja").write_text(template)
    for name, value in (files or {}).items():
        (directory / f"{name}.json").write_text(json.dumps(value))
    return directory
