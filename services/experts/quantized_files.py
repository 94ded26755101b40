"""A model folder in, the same model with quantised weights out.

Rules: a shell over quantize.py; knows folders and the safetensors layout (weight_files.py), and holds one matrix in
memory at a time, so that a model need not fit. Shards stay shards. What is not quantised becomes bfloat16, but scores'
corrections and the like (vectors of routers) stay as they are.
"""

from __future__ import annotations

import json
import mmap
import shutil
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from . import model_files, quantize, weight_files
from .quantize import Scheme

_READ = ("F32", "F16", "BF16")
_ARRAYS: dict[str, type[np.generic]] = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16, "F8_E4M3": np.uint8, "I8": np.int8,
    "I32": np.int32, "I64": np.int64,
}  # fmt: skip
_DTYPES = {"weight": {"fp8": "F8_E4M3", "int8": "I8"}, "weight_packed": "I32", "weight_shape": "I64"}
_BYTES = {
    "F64": 8, "I64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "F8_E4M3": 1, "I8": 1, "U8": 1,
    "BOOL": 1,
}  # fmt: skip

Say = Callable[[str], None]


@dataclass(frozen=True)
class Report:
    """What became of a model. Bytes of weights, `bf16_bytes` as if all of them were in bfloat16."""

    revision: str
    group: int
    num_matrices: int
    num_bytes: int
    bf16_bytes: int

    @property
    def share(self) -> float:
        return self.num_bytes / self.bf16_bytes


def check_scheme(name: str) -> Scheme:
    """Raises ConfigError."""
    if name not in quantize.SCHEMES:
        raise ConfigError(f"quantisation {name!r} is unknown; known are {', '.join(quantize.SCHEMES)}")
    return name


def quantize_folder(
    source: Path, target: Path, scheme: str, group: int = 0, say: Say = lambda text: None
) -> Report:
    """Write `target`, whole or not at all. Raises ConfigError: an unknown scheme, weights that are missing, damaged or
    quantised already, experts that are fused, a group that does not fit, a full disk."""
    wanted = check_scheme(scheme)
    config = _config(source)
    weight_files.check(source)
    shards = [Shard(path) for path in sorted(source.glob("*.safetensors"))]
    chosen = [name for shard in shards for name in shard.chosen]
    if not chosen:
        raise ConfigError(f"{source} has no matrices that could be quantised")
    if fused := [name for shard in shards for name, entry in shard.entries.items() if len(entry.shape) == 3]:
        raise ConfigError(f"{fused[0]} holds all experts in one tensor; only one matrix per expert is known")
    inputs = frozenset(shard.entries[name].shape[1] for shard in shards for name in shard.chosen)
    size = quantize.group_size(inputs, group) if wanted == "int4" else 0
    if target.exists() and any(target.iterdir()):
        raise ConfigError(f"{target} is there already; say another folder")
    sizes: list[int] = []

    def build(folder: Path) -> None:
        weight_map: dict[str, str] = {}
        for number, shard in enumerate(shards):
            say(f"{shard.path.name}: {len(shard.chosen)} matrices ({number + 1} of {len(shards)})")
            sizes.append(_write(folder / shard.path.name, shard, wanted, size, weight_map))
        for path in source.iterdir():
            if path.is_file() and path.suffix != ".safetensors" and path.name not in _OWN:
                shutil.copyfile(path, folder / path.name)
        stated = config | {"quantization_config": quantize.settings(wanted, size)}
        stated |= {key: "bfloat16" for key in ("torch_dtype", "dtype") if key in config}
        (folder / "config.json").write_text(json.dumps(stated, indent=1))
        if (source / weight_files.INDEX).is_file():
            index = {"metadata": {"total_size": sum(sizes)}, "weight_map": weight_map}
            (folder / weight_files.INDEX).write_text(json.dumps(index, indent=1))
        model_files.write_manifest(folder, {"name": source.name, "quantization": wanted, "group_size": size})

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        model_files.publish(target, build)
        manifest = model_files.check(target)
    except OSError as error:
        raise ConfigError(f"cannot write {target}: {error}") from error
    bf16_bytes = sum(2 * entry.count for shard in shards for entry in shard.entries.values())
    return Report(str(manifest["revision"]), size, len(chosen), sum(sizes), bf16_bytes)


_OWN = ("config.json", weight_files.INDEX, model_files.MANIFEST, model_files.STAMP)


@dataclass(frozen=True)
class Entry:
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def count(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))


class Shard:
    """One file's tensors, read when they are wanted."""

    def __init__(self, path: Path, check: bool = True) -> None:
        """Raises ConfigError where `check`ed weights are of a type that cannot be quantised."""
        self.path = path
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = cast(dict[str, dict[str, Any]], json.loads(file.read(length)))
        self._start = 8 + length
        self.entries = {
            name: Entry(entry["dtype"], tuple(entry["shape"]), *entry["data_offsets"])
            for name, entry in header.items()
            if name != "__metadata__"
        }
        self.chosen = [n for n, entry in self.entries.items() if quantize.is_quantized(n, entry.shape)]
        unknown = [name for name in self.chosen if self.entries[name].dtype not in _READ]
        if unknown and check:
            entry = self.entries[unknown[0]]
            raise ConfigError(
                f"{unknown[0]} is of type {entry.dtype}; weights to be quantised are float32, 16 or bfloat16"
            )

    def raw(self, name: str) -> bytes:
        entry = self.entries[name]
        with (
            self.path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        ):
            return mapped[self._start + entry.begin : self._start + entry.end]

    def array(self, name: str) -> NDArray[Any]:
        """As it is stored; bfloat16 and fp8 as their bits."""
        entry = self.entries[name]
        return np.frombuffer(self.raw(name), _ARRAYS[entry.dtype]).reshape(entry.shape)

    def values(self, name: str) -> NDArray[np.float32]:
        """In float32."""
        entry = self.entries[name]
        array = self.array(name)
        return quantize.from_bfloat16(array) if entry.dtype == "BF16" else array.astype(np.float32)


def _pieces(shard: Shard, scheme: Scheme, group: int) -> Iterator[tuple[str, str, tuple[int, ...], bytes]]:
    """(name, type, shape, bytes) of everything that the new file holds."""
    for name, entry in shard.entries.items():
        if quantize.is_quantized(name, entry.shape):
            made = quantize.quantized(shard.values(name), scheme, group)
            for suffix, array in made.items():
                yield (
                    f"{name.removesuffix('weight')}{suffix}",
                    _dtype(suffix, scheme),
                    array.shape,
                    array.tobytes(),
                )
        elif entry.dtype in ("F32", "F16") and name.endswith(".weight"):
            yield name, "BF16", entry.shape, quantize.to_bfloat16(shard.values(name)).tobytes()
        else:
            yield name, entry.dtype, entry.shape, shard.raw(name)


def _dtype(suffix: str, scheme: Scheme) -> str:
    if suffix == "weight_scale":
        return "BF16" if scheme == "int4" else "F32"
    known = _DTYPES[suffix]
    return known if isinstance(known, str) else known[scheme]


def _shapes(shard: Shard, scheme: Scheme, group: int) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """As `_pieces`, without making them: a file begins with its table."""
    for name, entry in shard.entries.items():
        stem = name.removesuffix("weight")
        if quantize.is_quantized(name, entry.shape):
            rows, columns = entry.shape
            if scheme == "int4":
                yield f"{stem}weight_packed", "I32", (rows, columns // 8)
                yield f"{stem}weight_scale", "BF16", (rows, columns // group)
                yield f"{stem}weight_shape", "I64", (2,)
            else:
                yield f"{stem}weight", _dtype("weight", scheme), entry.shape
                yield f"{stem}weight_scale", "F32", (rows, 1)
        elif entry.dtype in ("F32", "F16") and name.endswith(".weight"):
            yield name, "BF16", entry.shape
        else:
            yield name, entry.dtype, entry.shape


def _write(path: Path, shard: Shard, scheme: Scheme, group: int, weight_map: dict[str, str]) -> int:
    """One shard; returns the bytes of its tensors."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, dtype, shape in _shapes(shard, scheme, group):
        size = int(np.prod(shape, dtype=np.int64)) * _BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}
        weight_map[name] = path.name
        at += size
    table = json.dumps(header).encode()
    table += b" " * (-len(table) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(table)) + table)
        for name, dtype, shape, data in _pieces(shard, scheme, group):
            assert header[name]["dtype"] == dtype and tuple(header[name]["shape"]) == shape
            file.write(data)
    return at


def _config(source: Path) -> dict[str, object]:
    try:
        config = cast(dict[str, object], json.loads((source / "config.json").read_text()))
    except (OSError, ValueError) as error:
        raise ConfigError(f"no model in {source}: {error}") from error
    if (said := config.get("quantization_config")) is not None:
        method = cast(dict[str, object], said).get("quant_method") if isinstance(said, dict) else said
        raise ConfigError(f"the weights in {source} are quantised already ({method})")
    return config
