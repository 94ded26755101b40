"""Writes weights as safetensors."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from safetensors.numpy import save_file

from .gguf_file import Array


def write(path: Path, tensors: Iterable[tuple[str, Array]]) -> int:
    """Write all tensors into one file and return their bytes. Holds them in memory until written."""
    held = dict(tensors)
    save_file(held, path, metadata={"format": "pt"})
    return sum(tensor.nbytes for tensor in held.values())
