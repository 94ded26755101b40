"""A model folder is looked at before anything starts, and the error names the file."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from services.errors import ConfigError
from services.experts import weight_files


def write(path: Path, num_bytes: int = 16) -> None:
    header = json.dumps(
        {"__metadata__": {}, "w": {"dtype": "U8", "shape": [num_bytes], "data_offsets": [0, num_bytes]}}
    ).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(num_bytes))


def sharded(folder: Path) -> list[Path]:
    names = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    for name in names:
        write(folder / name)
    index = {"weight_map": {f"layer.{i}": name for i, name in enumerate(names * 2)}}
    (folder / weight_files.INDEX).write_text(json.dumps(index))
    return [folder / name for name in names]


def test_whole_files_are_counted(tmp_path: Path) -> None:
    files = sharded(tmp_path)
    assert weight_files.check(tmp_path) == sum(file.stat().st_size for file in files)


def test_a_single_file_needs_no_index(tmp_path: Path) -> None:
    write(tmp_path / "model.safetensors")
    assert weight_files.check(tmp_path) > 16


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    sharded(tmp_path)[1].unlink()
    with pytest.raises(ConfigError, match=r"weights are missing: .*model-00002-of-00003.safetensors, which"):
        weight_files.check(tmp_path)


def test_a_shard_that_was_cut_off_is_named(tmp_path: Path) -> None:
    shard = sharded(tmp_path)[2]
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(ConfigError, match=r"model-00003-of-00003\.safetensors is damaged"):
        weight_files.check(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"\x01", b"\xff" * 64, struct.pack("<Q", 4) + b"null", b"PK\x03\x04" * 9]
)
def test_what_is_no_safetensors_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ConfigError, match="is damaged"):
        weight_files.check(tmp_path)


def test_pickled_weights_are_not_taken(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(ConfigError, match="pickled"):
        weight_files.check(tmp_path)


def test_an_index_that_is_no_index(tmp_path: Path) -> None:
    (tmp_path / weight_files.INDEX).write_text("[]")
    with pytest.raises(ConfigError, match="cannot be read"):
        weight_files.check(tmp_path)
