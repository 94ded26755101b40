"""Are a model's weight files there and whole? Asked before anything starts; reads headers, not weights.

Rules: knows folders and the safetensors layout (8 bytes: length of a JSON header; the header; the tensors' bytes, one
after the other); standard library only. A hash of every byte is model_files.py's business.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import cast

from ..errors import ConfigError

INDEX = "model.safetensors.index.json"
ENCRYPTED = "encrypted.json"
"""The envelope of a folder that sealed_model.py made."""
MAX_HEADER_BYTES = 100_000_000


def check(folder: Path) -> int:
    """Bytes of all weight files. Raises ConfigError naming the first file that is missing, cut off or no safetensors
    file at all."""
    return sum(check_file(folder / name) for name in _names(folder))


def refuse_encrypted(folder: Path) -> None:
    """Raises ConfigError that says how to open it, where `folder` is an encrypted model."""
    if (folder / ENCRYPTED).is_file():
        raise ConfigError(
            f"{folder} is encrypted: open it with `expertmesh model decrypt` and serve the folder that it makes"
        )


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Each tensor's shape, of a file that `check_file` found sound."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = cast(dict[str, dict[str, list[int]]], json.loads(file.read(length)))
    return {name: tuple(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}


def _names(folder: Path) -> list[str]:
    index = folder / INDEX
    if index.is_file():
        try:
            named = cast(dict[str, str], json.loads(index.read_text())["weight_map"])
            names = sorted(set(named.values()))
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise ConfigError(f"{index} cannot be read: {error}") from error
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise ConfigError(f"weights are missing: {folder / missing[0]}{more}, which {INDEX} names")
        return names
    names = sorted(path.name for path in folder.glob("*.safetensors"))
    if not names:
        refuse_encrypted(folder)
        pickled = (
            " (pickled weights run code when they are loaded: convert them)"
            if any(folder.glob("*.bin"))
            else ""
        )
        raise ConfigError(f"no weights: {folder} holds no .safetensors file{pickled}")
    return names


def check_file(path: Path) -> int:
    """Bytes of one file. Raises ConfigError when it is cut off or no safetensors file at all, OSError."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else MAX_HEADER_BYTES + 1
        if length > min(size, MAX_HEADER_BYTES):
            raise ConfigError(f"{path} is damaged: it does not begin as a safetensors file does")
        try:
            header = cast(dict[str, dict[str, list[int]]], json.loads(file.read(length)))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise ConfigError(f"{path} is damaged: its header cannot be read") from error
    wanted = 8 + length + max(ends, default=0)
    if size != wanted:
        raise ConfigError(f"{path} is damaged: it has {size:,} bytes, its header says {wanted:,}")
    return size
