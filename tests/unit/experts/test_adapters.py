"""Adapters by name and version; which of them an engine keeps; what fits a base."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from services.cli.model import app
from services.errors import RequestError
from services.experts import adapter_files, safetensors_file
from services.experts.adapters import AdapterRef, Residents, is_name, split_model
from tests.adapter_maker import make_adapter, make_real_adapter

MIXTRAL = {
    "hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2,
    "intermediate_size": 16, "num_local_experts": 4,
}  # fmt: skip
V2 = {
    "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "kv_lora_rank": 8, "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4, "v_head_dim": 8, "q_lora_rank": None, "n_routed_experts": 4,
}  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "split"),
    [
        ("", ("moe", "")),
        ("moe", ("moe", "")),
        ("moe:french", ("moe", "french")),
        ("moe:a:b", ("moe", "a:b")),
        ("moe:", None),
        ("moes:french", None),
        ("other", None),
    ],
)
def test_base_and_adapter(asked: str, split: tuple[str, str] | None) -> None:
    assert split_model(asked, "moe") == split


def test_names_are_one_folders() -> None:
    assert all(map(is_name, ("french", "v1.2", "A-b_c", "x" * 64)))
    assert not any(
        map(is_name, ("", ".", "..", "a/b", "../a", "a b", "-a", "x" * 65, "a:b", "a@b", "é", "a\n"))
    )
    assert AdapterRef.parse(str(AdapterRef("french", "0f"))) == ("french", "0f")


@given(
    st.integers(1, 4), st.lists(st.tuples(st.sampled_from("abcdefg"), st.sets(st.sampled_from("abcdefg"))))
)
def test_residents(capacity: int, uses: list[tuple[str, set[str]]]) -> None:
    """1. What is held has a number, its own, never used before. 2. Nothing in use is dropped. 3. At most `capacity` are
    held, or all others are in use. 4. The longest unused goes first. 5. What is held is not loaded again."""
    residents, numbers, seen = Residents(capacity), dict[str, int](), set[int]()
    for name, in_use in uses:
        before = residents.held
        kept = residents.use(name, in_use)
        assert kept.fresh == (name not in before)
        assert (kept.number in seen) == (not kept.fresh)
        seen.add(kept.number)
        dropped = [one for one in before if numbers[one] in kept.dropped]
        assert not in_use.intersection(dropped)
        idle = [one for one in before if one not in in_use]
        assert dropped == idle[: len(dropped)]
        numbers[name] = kept.number
        assert residents.held[-1] == name
        if kept.fresh:
            others = set(residents.held) - {name}
            assert len(residents.held) <= capacity or others <= in_use


def test_what_could_not_be_loaded_is_tried_again() -> None:
    residents = Residents(2)
    residents.use("a")
    residents.forget("a")
    assert residents.use("a").fresh


def base_in(folder: Path, config: dict[str, object]) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("config", [MIXTRAL, V2], ids=["grouped-query", "latent"])
def test_one_that_fits(tmp_path: Path, config: dict[str, object]) -> None:
    model = base_in(tmp_path / "moe", config)
    path = make_real_adapter(tmp_path / "adapters", "good", model)
    found = adapter_files.find(tmp_path / "adapters", "good", adapter_files.base_of("moe", str(model)))
    assert (found.ref, found.rank) == (AdapterRef("good", adapter_files.revision_of(path)), 4)
    kept = adapter_files.keep(found, tmp_path / "kept")
    assert adapter_files.keep(found, tmp_path / "kept") == kept
    assert adapter_files.revision_of(kept) == found.ref.revision
    assert sorted(one.name for one in (tmp_path / "kept").iterdir()) == [str(found.ref)]


def test_a_copy_of_what_changed_meanwhile_is_not_kept(tmp_path: Path) -> None:
    make_adapter(tmp_path / "adapters", "a", "sim", seed=1)
    found = adapter_files.find(tmp_path / "adapters", "a", adapter_files.base_of("sim", ""))
    make_adapter(tmp_path / "adapters", "a", "sim", seed=2)
    with pytest.raises(RequestError, match="was replaced by another version"):
        adapter_files.keep(found, tmp_path / "kept")
    assert list((tmp_path / "kept").iterdir()) == []


LAYER = "base_model.model.model.layers.{}.self_attn.{}.lora_{}.weight"


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({LAYER.format(0, "q_proj", "A"): (4, 48)}, "and this base wants 32 there"),
        ({LAYER.format(0, "k_proj", "B"): (32, 4)}, "and this base wants 16 there"),
        ({LAYER.format(0, "q_proj", "A"): (32, 32)}, "and this base wants 32 there"),
        ({LAYER.format(2, "q_proj", "A"): (4, 32)}, "it changes layer 2, and this base has 2"),
        (
            {LAYER.format(0, "kv_b_proj", "A"): (4, 32)},
            "it changes kv_b_proj, and adapters of this model may",
        ),
        ({"base_model.model.lm_head.lora_A.weight": (4, 32)}, "it changes base_model.model.lm_head"),
        ({LAYER.format(0, "o_proj", "A"): None}, "layer 0's o_proj one of the two matrices is missing"),
    ],
)
def test_one_of_another_base(tmp_path: Path, changed: dict[str, tuple[int, ...] | None], why: str) -> None:
    model = base_in(tmp_path / "moe", MIXTRAL)
    path = make_real_adapter(tmp_path / "adapters", "bad", model)
    tensors, _ = safetensors_file.read(path / adapter_files.WEIGHTS)
    for name, shape in changed.items():
        if shape is None:
            del tensors[name]
        else:
            tensors[name] = np.zeros(shape, np.float32)
    safetensors_file.write(path / adapter_files.WEIGHTS, tensors.items())
    base = adapter_files.base_of("moe", str(model))
    with pytest.raises(RequestError, match=why):
        adapter_files.find(tmp_path / "adapters", "bad", base)


def test_experts_are_nobodys_to_change() -> None:
    assert set(adapter_files.projections(MIXTRAL)) == {"q_proj", "k_proj", "v_proj", "o_proj"}
    dense = {key: value for key, value in MIXTRAL.items() if key != "num_local_experts"}
    assert set(adapter_files.projections(dense)) > {"gate_proj", "down_proj"}
    assert adapter_files.projections(V2) == {"q_proj": (32, 48), "o_proj": (32, 32)}
    assert adapter_files.projections(V2 | {"q_lora_rank": 6})["q_b_proj"] == (6, 48)


def test_a_file_of_tenants_that_cannot_be_read_closes(tmp_path: Path) -> None:
    path = make_adapter(tmp_path, "a", "sim")
    assert adapter_files.tenants_of(path) is None
    for text, tenants in (('["acme", 7]', {"acme"}), ("acme", set()), ("{}", set()), ("[]", set())):
        (path / adapter_files.TENANTS).write_text(text)
        assert adapter_files.tenants_of(path) == tenants


def test_the_command_names_each(tmp_path: Path) -> None:
    model = base_in(tmp_path / "moe", MIXTRAL)
    make_real_adapter(tmp_path / "adapters", "good", model)
    told = [str(tmp_path / "adapters"), "--model", str(model)]
    good = CliRunner().invoke(app, ["adapters", *told])
    assert (good.exit_code, "rank 4\tfor everybody" in good.output) == (0, True)
    make_adapter(tmp_path / "adapters", "bad", "llama")
    bad = CliRunner().invoke(app, ["adapters", *told])
    assert (bad.exit_code, "made for the base 'llama'" in bad.output) == (1, True)
