"""Fewer bits: what is kept of a matrix, what of a folder, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from services.cli.model import app
from services.errors import ConfigError
from services.experts import groups, model_files, quantize, safetensors_file, weight_files
from services.experts.quantize import Scheme
from services.experts.quantized_files import Shard, quantize_folder

RNG = np.random.default_rng(0)
# Of the largest value of a row (fp8: of the value itself; int4: of the largest of a group).
STEP = {"int8": 0.5 / 127, "int4": 0.5 / 7.5}


@pytest.mark.parametrize("scheme", quantize.SCHEMES)
def test_what_is_restored_is_near(scheme: Scheme) -> None:
    weight = RNG.normal(0, 0.05, (24, 128)).astype(np.float32)
    error = np.abs(quantize.restored(quantize.quantized(weight, scheme, 32), scheme) - weight)
    if scheme == "fp8":
        assert (error <= np.abs(weight) / 16 + np.abs(weight).max(1, keepdims=True) * 2.0**-9 / 448).all()
    elif scheme == "int8":
        assert (error <= np.abs(weight).max(1, keepdims=True) * STEP[scheme] * 1.001).all()
    else:
        largest = np.abs(weight).reshape(24, 4, 32).max(2)
        mean_square = np.square(error).reshape(24, 4, 32).mean(2)
        assert (mean_square <= np.square(largest * STEP[scheme])).all()


@given(st.floats(-448, 448, width=32))
def test_fp8_is_the_nearest_value(value: float) -> None:
    """Property: no other fp8 value is nearer."""
    (code,) = quantize.to_fp8(np.array([value], np.float32))
    every = quantize.from_fp8(np.arange(256, dtype=np.uint8))
    assert abs(float(every[code]) - value) == np.nanmin(np.abs(every.astype(np.float64) - value))


@given(st.integers(0, 255))
def test_fp8_values_are_themselves(code: int) -> None:
    value = quantize.from_fp8(np.array([code], np.uint8))
    if not np.isnan(value[0]):
        assert quantize.from_fp8(quantize.to_fp8(value))[0] == value[0]


@given(st.lists(st.floats(-1, 1, width=32), min_size=32, max_size=32))
def test_int4_is_never_worse_than_plain_rounding(values: list[float]) -> None:
    """Property: the chosen scale's squared error is at most that of the group's own range."""
    weight = np.array([values], np.float32)
    found = quantize.restored(quantize.quantized(weight, "int4", 32), "int4")
    scale = quantize.from_bfloat16(
        quantize.to_bfloat16(
            np.maximum(np.abs(weight).max(keepdims=True), np.float32(1e-8)) / np.float32(7.5)
        )
    )
    plain = np.rint(weight / scale).clip(-8, 7) * scale
    assert np.square(found - weight).sum() <= np.square(plain - weight).sum() * 1.0001 + 1e-20


def test_a_row_of_zeros_stays_zero() -> None:
    weight = np.zeros((2, 32), np.float32)
    for scheme in quantize.SCHEMES:
        assert not quantize.restored(quantize.quantized(weight, scheme, 32), scheme).any()


@pytest.mark.parametrize(
    ("name", "shape", "chosen"),
    [
        ("model.layers.0.self_attn.q_proj.weight", (8, 8), True),
        ("model.layers.0.block_sparse_moe.experts.3.w1.weight", (8, 8), True),
        ("model.layers.0.mlp.gate_proj.weight", (8, 8), True),
        ("model.layers.0.mlp.gate.weight", (4, 8), False),
        ("model.layers.0.mlp.shared_expert_gate.weight", (1, 8), False),
        ("model.layers.0.input_layernorm.weight", (8,), False),
        ("model.embed_tokens.weight", (99, 8), False),
        ("lm_head.weight", (99, 8), False),
        ("model.layers.0.self_attn.q_proj.bias", (8,), False),
    ],
)
def test_which_matrices(name: str, shape: tuple[int, ...], chosen: bool) -> None:
    assert quantize.is_quantized(name, shape) is chosen


def test_groups_divide_every_input() -> None:
    assert quantize.group_size(frozenset({256, 1408})) == 128
    assert quantize.group_size(frozenset({576, 192})) == 64
    assert quantize.group_size(frozenset({576, 192}), 32) == 32
    with pytest.raises(ConfigError, match="groups of 128 do not divide inputs of 192, 576: 32, 64 would"):
        quantize.group_size(frozenset({576, 192}), 128)
    with pytest.raises(ConfigError, match="none divides inputs of 100"):
        quantize.group_size(frozenset({100}))


def model(folder: Path, **config: object) -> Path:
    """Two shards of a model that is nobody's."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"torch_dtype": "float32", "model_type": "x", **config}))
    (folder / "tokenizer.json").write_text("{}")
    names = {
        "model.layers.0.self_attn.q_proj.weight": "a.safetensors",
        "model.embed_tokens.weight": "b.safetensors",
    }
    (folder / weight_files.INDEX).write_text(json.dumps({"weight_map": names}))
    for name, file in names.items():
        safetensors_file.write(folder / file, {name: RNG.normal(size=(64, 64)).astype(np.float32)}.items())
    return folder


@pytest.mark.parametrize("scheme", quantize.SCHEMES)
def test_a_folder_becomes_a_folder(tmp_path: Path, scheme: Scheme) -> None:
    source, target = model(tmp_path / "m"), tmp_path / "q"
    report = quantize_folder(source, target, scheme)
    assert report.num_matrices == 1
    assert weight_files.check(target) > report.num_bytes
    assert model_files.check(target, deep=True)["revision"] == report.revision
    config = json.loads((target / "config.json").read_text())
    assert config["torch_dtype"] == "bfloat16"
    said = config["quantization_config"]
    assert (said["quant_method"], said["format"]) == ("compressed-tensors", quantize.NAMES[scheme])
    assert said["quant_method"] in groups.KNOWN_QUANTIZATIONS
    assert (target / "tokenizer.json").is_file()
    shard = Shard(target / "a.safetensors", check=False)
    weight = Shard(source / "a.safetensors").values("model.layers.0.self_attn.q_proj.weight")
    parts = {name.rsplit(".", 1)[1]: shard.array(name) for name in shard.entries}
    again = quantize.restored(parts, scheme)
    assert np.array_equal(again, quantize.restored(quantize.quantized(weight, scheme, report.group), scheme))
    named = json.loads((target / weight_files.INDEX).read_text())["weight_map"]
    assert set(named) == {*shard.entries, "model.embed_tokens.weight"}
    bits = 16 * 4096 + quantize.bits_per_weight(scheme, report.group or 64) * 4096
    rows = 64 * 32 if scheme != "int4" else 2 * 64
    assert report.num_bytes * 8 == bits + rows


def test_what_cannot_be_quantised_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    source, target = model(tmp_path / "m"), tmp_path / "q"
    with pytest.raises(ConfigError, match="quantisation 'int3' is unknown; known are fp8, int8, int4"):
        quantize_folder(source, target, "int3")
    with pytest.raises(ConfigError, match="quantised already \\(gptq\\)"):
        quantize_folder(model(tmp_path / "g", quantization_config={"quant_method": "gptq"}), target, "fp8")
    with pytest.raises(ConfigError, match="no model in"):
        quantize_folder(tmp_path / "nothing", target, "fp8")
    bad = model(tmp_path / "nan")
    safetensors_file.write(
        bad / "a.safetensors",
        {"model.layers.0.self_attn.q_proj.weight": np.full((64, 64), np.nan, np.float32)}.items(),
    )
    with pytest.raises(ConfigError, match="not a finite number"):
        quantize_folder(bad, target, "fp8")
    (source / "a.safetensors").unlink()
    with pytest.raises(ConfigError, match="weights are missing"):
        quantize_folder(source, target, "fp8")
    fused = model(tmp_path / "fused")
    safetensors_file.write(
        fused / "a.safetensors",
        {
            "model.layers.0.self_attn.q_proj.weight": np.zeros((64, 64), np.float32),
            "model.layers.0.mlp.experts.gate_up_proj": np.zeros((2, 4, 4), np.float32),
        }.items(),
    )
    with pytest.raises(ConfigError, match="all experts in one tensor"):
        quantize_folder(fused, target, "fp8")
    assert not target.exists()


def test_the_command(tmp_path: Path) -> None:
    source = model(tmp_path / "m")
    run = CliRunner().invoke(app, ["quantize", str(source), str(tmp_path / "q"), "--scheme", "int4"])
    assert run.exit_code == 0, run.output
    assert "1 matrices in int4, groups of 64" in run.output
    again = CliRunner().invoke(app, ["quantize", str(source), str(tmp_path / "q")])
    assert (again.exit_code, "is there already" in again.output) == (2, True)
    unknown = CliRunner().invoke(app, ["quantize", str(source), str(tmp_path / "r"), "--scheme", "int2"])
    assert unknown.exit_code == 2
    assert unknown.output.count("error:") == 1
