"""Preparing a model: once, atomically, and never from or into something damaged."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from services.errors import ConfigError
from services.experts import model_files, model_store, safetensors_file
from tests.unit.experts.gguf_writer import tiny_llama
from tests.unit.experts.test_sparse_split import PLAN, packed


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny model in place of the package's, pinned as that is."""
    path = tmp_path / "tiny.gguf"
    path.write_bytes(tiny_llama())
    monkeypatch.setattr(model_store, "find_source", lambda: path)
    monkeypatch.setattr(model_store, "SOURCE_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    return path


def test_makes_a_model_once(source: Path, tmp_path: Path) -> None:
    said: list[str] = []
    first = model_store.prepare(tmp_path / "cache", said.append)
    assert said
    source.unlink()  # not needed any more
    said.clear()
    again = model_store.prepare(tmp_path / "cache", said.append)
    assert again == first
    assert said == []
    weights = load_file(first.path / "model.safetensors")
    assert weights["model.layers.1.block_sparse_moe.experts.7.w2.weight"].shape == (64, 16)
    assert all(tensor.dtype == np.float32 for tensor in weights.values())
    assert json.loads((first.path / "config.json").read_text())["model_type"] == "mixtral"
    assert (first.path / "chat_template.jinja").read_text() == "{{ messages[0]['content'] }}"


def test_the_tokenizer_merges_and_splits_digits(source: Path, tmp_path: Path) -> None:
    path = model_store.prepare(tmp_path / "cache").path
    tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
    assert tokenizer.encode("<|im_end|>").ids == [2]
    assert tokenizer.token_to_id("ab") == 259
    cut = tokenizer.pre_tokenizer.pre_tokenize_str("in 1984")
    assert [text for text, _ in cut] == ["in", "Ġ", "1", "9", "8", "4"]


@pytest.mark.parametrize("how", ["cut", "changed", "gone", "no manifest"])
def test_a_damaged_model_is_made_again(source: Path, tmp_path: Path, how: str) -> None:
    path = model_store.prepare(tmp_path / "cache").path
    weights = path / "model.safetensors"
    before = weights.read_bytes()
    if how == "cut":
        weights.write_bytes(before[:-1])
    elif how == "changed":
        weights.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    elif how == "gone":
        weights.unlink()
    else:
        (path / model_files.MANIFEST).unlink()
    said: list[str] = []
    model_store.prepare(tmp_path / "cache", said.append)
    assert any("making it again" in line for line in said)
    assert weights.read_bytes() == before


def test_a_deep_check_finds_what_the_stamp_cannot(source: Path, tmp_path: Path) -> None:
    path = model_store.prepare(tmp_path / "cache").path
    weights = path / "model.safetensors"
    stat = weights.stat()
    with weights.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    model_files.check(path)
    with pytest.raises(model_files.DamagedModel, match="another SHA-256"):
        model_files.check(path, deep=True)


def test_another_source_is_refused_and_nothing_is_left(source: Path, tmp_path: Path) -> None:
    source.write_bytes(source.read_bytes() + b"\0")
    with pytest.raises(ConfigError, match="not the pinned"):
        model_store.prepare(tmp_path / "cache")
    left = [path.name for path in (tmp_path / "cache" / "models").iterdir()]
    assert left == [".lock"]


def test_leftovers_of_a_killed_run_are_cleared(source: Path, tmp_path: Path) -> None:
    target = model_store.default_model_path(tmp_path / "cache")
    half = target.with_name(f".{target.name}.new")
    half.mkdir(parents=True)
    (half / "model.safetensors").write_bytes(b"half")
    model_store.prepare(tmp_path / "cache")
    assert not half.exists()


def test_the_cache_is_outside_of_any_checkout() -> None:
    assert model_store.cache_root({"EXPERTMESH_CACHE_DIR": "/data"}) == Path("/data")
    assert model_store.cache_root({"XDG_CACHE_HOME": "/x"}) == Path("/x/expertmesh")
    assert model_store.cache_root({}) == Path.home() / ".cache" / "expertmesh"


@pytest.fixture
def corrections(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Corrections for the tiny model, pinned as the real ones are."""
    path = tmp_path / "tiny-sparse.safetensors"
    safetensors_file.write(path, packed().items(), {"plan": PLAN.to_json()})
    monkeypatch.setattr(model_store, "CORRECTIONS", path)
    monkeypatch.setattr(model_store, "CORRECTIONS_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    return path


def test_the_sparse_variant_stands_beside_the_exact_one(corrections: Path, tmp_path: Path) -> None:
    exact = model_store.prepare(tmp_path / "cache")
    sparse = model_store.prepare(tmp_path / "cache", variant="sparse")
    assert sparse.path == model_store.default_model_path(tmp_path / "cache", "sparse") != exact.path
    assert sparse.revision != exact.revision
    assert json.loads((sparse.path / "config.json").read_text())["model_type"] == "glm4_moe"
    weights = load_file(sparse.path / "model.safetensors")
    assert weights["model.layers.1.mlp.experts.5.down_proj.weight"].shape == (64, 16)
    assert weights["model.layers.0.mlp.gate.weight"].dtype == np.float32
    for name in ("tokenizer.json", "chat_template.jinja"):
        assert (sparse.path / name).read_bytes() == (exact.path / name).read_bytes()


def test_other_corrections_than_the_pinned_are_refused(corrections: Path, tmp_path: Path) -> None:
    corrections.write_bytes(corrections.read_bytes()[:-1] + b"x")
    with pytest.raises(ConfigError, match="not the pinned"):
        model_store.prepare(tmp_path / "cache", variant="sparse")
    corrections.unlink()
    with pytest.raises(ConfigError, match="does not carry the sparse model"):
        model_store.prepare(tmp_path / "cache", variant="sparse")
    assert not model_store.default_model_path(tmp_path / "cache", "sparse").exists()


def test_the_carried_corrections_are_the_pinned_ones() -> None:
    assert model_files.sha256_of(model_store.CORRECTIONS) == model_store.CORRECTIONS_SHA256
    assert model_store.CORRECTIONS.stat().st_size <= 16_000_000


def test_a_setting_names_a_variant_or_a_folder() -> None:
    assert model_store.embedded_variant("") == "exact"
    assert model_store.embedded_variant("sparse") == "sparse"
    assert model_store.embedded_variant("/models/sparse") is None
