"""Writes and reads weights as safetensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file


def write(
    path: Path, tensors: Iterable[tuple[str, NDArray[Any]]], about: Mapping[str, str] | None = None
) -> int:
    """Write all tensors into one file and return their bytes. Holds them in memory until written.

    Arrays may be views in any order: the library writes memory as it lies (safetensors 0.8), and a transposed array
    would come back scrambled."""
    held = {name: np.ascontiguousarray(tensor) for name, tensor in tensors}
    save_file(held, path, metadata={"format": "pt", **(about or {})})
    return sum(tensor.nbytes for tensor in held.values())


def read(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """All tensors, and what the file says about itself. Raises ValueError for a damaged file."""
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is no sound safetensors file: {error}") from error
