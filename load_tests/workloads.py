"""Seeded workloads: what simulated users ask, the same for the same seed.

Rules: pure; knows no client and no clock. Prompts are of three kinds, because systems behave differently on
each: frequently asked questions (few, repeated, Zipf-distributed: what a response cache is for), fresh chats,
and long documents. Sizes are drawn from log-normal distributions, as measured ones look (BurstGPT, Wang et
al. 2024).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from math import exp
from typing import Literal

import msgspec

_FAQ = (
    "What are your opening hours?", "How do I reset my password?", "Where is my order?", "怎么修改收货地址？",
    "Which payment methods do you accept?", "How do I cancel my subscription?", "发票怎么开？",
    "Do you ship abroad?", "How long does delivery take?", "Can I return an opened item?", "忘记密码怎么办？",
    "What is the capital of France?",
)  # fmt: skip
_WORDS = (
    "river", "stone", "market", "engine", "letter", "window", "garden", "signal", "winter", "bridge", "copper",
    "music", "harbor", "paper", "forest", "camera", "doctor", "summer", "planet", "yellow", "silver", "orange",
    "kitchen", "library", "teacher", "machine", "weather", "journey", "village", "story",
)  # fmt: skip
_TASKS = (
    "Summarise",
    "Explain",
    "Continue",
    "Rewrite for a child",
    "List the points of",
    "Translate into French",
)

Kind = Literal["faq", "chat", "long"]


class Ask(msgspec.Struct, frozen=True):
    """One thing to ask. `greedy` answers can be cached and compared."""

    kind: Kind
    text: str
    max_tokens: int
    greedy: bool


class Mix(msgspec.Struct, frozen=True):
    """Shares of the kinds (they are normalised), and sizes in words and tokens."""

    faq: float = 0.3
    chat: float = 0.6
    long: float = 0.1
    chat_words: int = 40
    long_words: int = 600
    max_tokens: int = 64


def workload(seed: int, mix: Mix = Mix()) -> Iterator[Ask]:  # noqa: B008 — frozen
    """Endless asks of one user. Raises ValueError when no kind has a share."""
    shares = (mix.faq, mix.chat, mix.long)
    if min(shares) < 0 or not sum(shares):
        raise ValueError(f"the shares of a mix must be positive: {shares}")
    rng = random.Random(seed)
    kinds: tuple[Kind, ...] = ("faq", "chat", "long")
    while True:
        kind = rng.choices(kinds, shares)[0]
        if kind == "faq":
            yield Ask("faq", _FAQ[_zipf(rng, len(_FAQ))], mix.max_tokens, greedy=True)
        else:
            words = _size(rng, mix.chat_words if kind == "chat" else mix.long_words)
            tokens = max(1, min(mix.max_tokens, _size(rng, mix.max_tokens)))
            yield Ask(kind, _prose(rng, words), tokens, greedy=rng.random() < 0.5)


def _zipf(rng: random.Random, size: int) -> int:
    return rng.choices(range(size), [1 / (rank + 1) for rank in range(size)])[0]


def _size(rng: random.Random, median: int) -> int:
    return max(1, min(int(median * exp(rng.gauss(0.0, 0.5))), 4 * median))


def _prose(rng: random.Random, num_words: int) -> str:
    return f"{rng.choice(_TASKS)}: {' '.join(rng.choices(_WORDS, k=num_words))}."
