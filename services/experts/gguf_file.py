"""Reads GGUF files: settings and tensors, dequantised to float32. Pure: a buffer in, values and arrays out.

Rules: knows the format (github.com/ggml-org/ggml, docs/gguf.md, version 3) and numpy; no model, no torch, no
transformers (whose own reader takes 53 s for what takes one here). Only the tensor types that our source
needs are known; another type is a ValueError that names it.

    magic "GGUF" · version u32 · tensors u64 · settings u64
    settings   key string · type u32 · value
    tensors    name string · dimensions u32 · sizes u64[] (fastest first) · type u32 · offset u64
    padding to `general.alignment` (32) · data
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

Setting = str | int | float | bool | list["Setting"]
Array = NDArray[np.float32]

MAX_COUNT = 1 << 24
"""More settings, tensors or array items than this is a damaged file."""

_SCALARS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of the file. `shape` is in numpy order (slowest first); `offset` is in bytes into the file."""

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int


class GgufFile:
    """A parsed header over `buffer` (a memory map will do). Raises ValueError when the buffer is no GGUF v3."""

    def __init__(self, buffer: bytes | memoryview) -> None:
        self._buffer = memoryview(buffer)
        self._at = 0
        if bytes(self._buffer[:4]) != b"GGUF":
            raise ValueError("not a GGUF file")
        self._at = 4
        try:
            version = self._scalar(4)
            if version != 3:
                raise ValueError(f"GGUF version {version}, only 3 is known")
            num_tensors, num_settings = self._count(), self._count()
            self.settings: dict[str, Setting] = {}
            for _ in range(num_settings):
                key = self._string()
                self.settings[key] = self._value(int(self._scalar(4)))
            entries = [self._entry() for _ in range(num_tensors)]
        except (struct.error, UnicodeDecodeError) as error:
            raise ValueError(f"damaged GGUF header: {error}") from error
        alignment = self.settings.get("general.alignment", 32)
        assert isinstance(alignment, int)
        base = -(-self._at // alignment) * alignment
        self.tensors = {e.name: TensorEntry(e.name, e.shape, e.kind, base + e.offset) for e in entries}

    def tensor(self, name: str) -> Array:
        """The tensor as float32 of its shape. Raises KeyError, or ValueError for an unknown type or a cut file."""
        entry = self.tensors[name]
        kind = _KINDS.get(entry.kind)
        if kind is None:
            raise ValueError(f"tensor {name} has GGUF type {entry.kind}, known are {sorted(_KINDS)}")
        num_values = prod(entry.shape)
        num_bytes = num_values // kind.block_values * kind.block_bytes
        raw = np.frombuffer(self._buffer, np.uint8, num_bytes, entry.offset)
        return kind.dequantise(raw.reshape(-1, kind.block_bytes)).reshape(entry.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def close(self) -> None:
        """Let go of the buffer, so that a memory map below it can be closed. Tensors already read stay."""
        self._buffer.release()

    # header ---------------------------------------------------------------------------------------------

    def _scalar(self, kind: int) -> int | float | bool:
        form = _SCALARS[kind]
        (value,) = struct.unpack_from(form, self._buffer, self._at)
        self._at += struct.calcsize(form)
        return value

    def _count(self) -> int:
        count = int(self._scalar(10))
        if count > MAX_COUNT:
            raise ValueError(f"damaged GGUF header: a count of {count}")
        return count

    def _string(self) -> str:
        length = self._count()
        text = bytes(self._buffer[self._at : self._at + length]).decode()
        self._at += length
        return text

    def _value(self, kind: int) -> Setting:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            item = int(self._scalar(4))
            return [self._value(item) for _ in range(self._count())]
        if kind not in _SCALARS:
            raise ValueError(f"damaged GGUF header: value type {kind}")
        return self._scalar(kind)

    def _entry(self) -> TensorEntry:
        name = self._string()
        sizes = [int(self._scalar(10)) for _ in range(int(self._scalar(4)))]
        kind, offset = int(self._scalar(4)), int(self._scalar(10))
        return TensorEntry(name, tuple(reversed(sizes)), kind, offset)


# tensor types: rows of blocks (uint8 [blocks, block_bytes]) → float32 [blocks, block_values] -----------------


def _f32(blocks: NDArray[np.uint8]) -> Array:
    return blocks.view(np.float32).copy()


def _f16(blocks: NDArray[np.uint8]) -> Array:
    return blocks.view(np.float16).astype(np.float32)


def _q4_1(blocks: NDArray[np.uint8]) -> Array:
    """32 values: scale f16, minimum f16, 16 bytes of nibbles (low halves first). value = scale · q + minimum."""
    head = blocks[:, :4].copy().view(np.float16).astype(np.float32)
    nibbles = blocks[:, 4:]
    q = np.concatenate([nibbles & 0x0F, nibbles >> 4], axis=1).astype(np.float32)
    return q * head[:, :1] + head[:, 1:]


def _q8_0(blocks: NDArray[np.uint8]) -> Array:
    """32 values: scale f16, 32 signed bytes. value = scale · q."""
    scale = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    return blocks[:, 2:].view(np.int8).astype(np.float32) * scale


@dataclass(frozen=True)
class _Kind:
    block_values: int
    block_bytes: int
    dequantise: Callable[[NDArray[np.uint8]], Array]


_KINDS = {0: _Kind(1, 4, _f32), 1: _Kind(1, 2, _f16), 3: _Kind(32, 20, _q4_1), 8: _Kind(32, 34, _q8_0)}
