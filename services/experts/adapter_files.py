"""LoRA adapters on disk, a folder each, as PEFT writes them, below one folder of the model store: which are there, and
can one be served with this base? Asked before an engine hears of it.

    ADAPTERS/french/adapter_config.json         rank, scaling, the base it was made for
    ADAPTERS/french/adapter_model.safetensors   two small matrices per projection
    ADAPTERS/french/tenants.json                optional: ["acme"], the only tenants that it exists for

Rules: knows folders, PEFT's names and a model's config.json; standard library only. Reads headers of weights, and
all of them once for the hash that is the adapter's revision. What it says is for operators and for clients alike.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from ..errors import ConfigError, RequestError
from ..outcome import Reason
from . import weight_files
from .adapters import AdapterRef, is_name

CONFIG, WEIGHTS, TENANTS = "adapter_config.json", "adapter_model.safetensors", "tenants.json"
MAX_CONFIG_BYTES = 1_000_000

_TENSOR = re.compile(
    r"base_model\.model\.(?:model\.)?layers\.(\d+)\.(?:self_attn|mlp)\.(\w+)\.lora_(A|B)\.weight"
)
_NOT_SERVED = ("use_dora", "lora_bias", "alora_invocation_tokens", "layer_replication", "modules_to_save")
"""PEFT's features that change what an adapter computes and that vLLM does not have."""

Shapes = dict[str, tuple[int, int]]


@dataclass(frozen=True)
class Base:
    """What adapters must fit: the names that the base goes by, and [in, out] of each projection that an adapter may
    change (empty for the simulated model: any)."""

    names: frozenset[str]
    num_layers: int = 0
    shapes: tuple[tuple[str, int, int], ...] = ()
    max_rank: int = 16

    @property
    def modules(self) -> tuple[str, ...]:
        return tuple(name for name, _, _ in self.shapes)


@dataclass(frozen=True)
class Adapter:
    """One that was checked."""

    ref: AdapterRef
    path: Path
    rank: int


def base_of(model_name: str, model_path: str, max_rank: int = 16) -> Base:
    """The base that a model folder is; "" is the simulated model. Raises ConfigError."""
    if not model_path:
        return Base(frozenset({model_name}), max_rank=max_rank)
    folder = Path(model_path)
    try:
        config = cast(dict[str, object], json.loads((folder / "config.json").read_text()))
    except (OSError, ValueError) as error:
        raise ConfigError(f"no model in {folder}: {error}") from error
    shapes = tuple((name, *shape) for name, shape in projections(config).items())
    names = frozenset(name for name in (model_name, folder.name) if name)
    return Base(names, _int(config, "num_hidden_layers"), shapes, max_rank)


def projections(config: Mapping[str, object]) -> Shapes:
    """[in, out] of each projection that adapters may change: attention's, and the FFN's of dense models. Adapters of
    routed experts are not served: vLLM has no kernel for them on CPUs, and none was tried on GPUs. Nor are those of
    MLA's key and value projections, which vLLM folds into others."""
    hidden, heads = _int(config, "hidden_size"), _int(config, "num_attention_heads", 1)
    if "kv_lora_rank" in config:
        query = heads * (_int(config, "qk_nope_head_dim") + _int(config, "qk_rope_head_dim"))
        out = {"o_proj": (heads * _int(config, "v_head_dim"), hidden)}
        if rank := _int(config, "q_lora_rank"):
            return {"q_b_proj": (rank, query), **out}
        return {"q_proj": (hidden, query), **out}
    head = _int(config, "head_dim") or hidden // heads
    keys = (_int(config, "num_key_value_heads") or heads) * head
    shapes = {
        "q_proj": (hidden, heads * head), "k_proj": (hidden, keys), "v_proj": (hidden, keys),
        "o_proj": (heads * head, hidden),
    }  # fmt: skip
    has_experts = any(key in config for key in ("num_local_experts", "n_routed_experts", "num_experts"))
    if (width := _int(config, "intermediate_size")) and not has_experts:
        shapes |= {"gate_proj": (hidden, width), "up_proj": (hidden, width), "down_proj": (width, hidden)}
    return shapes


def names(folder: Path) -> tuple[str, ...]:
    """Adapters that lie there, sound or not, sorted. Empty when there is no such folder."""
    try:
        found = [one.name for one in folder.iterdir() if is_name(one.name) and (one / CONFIG).is_file()]
    except OSError:
        return ()
    return tuple(sorted(found))


def find(folder: Path, name: str, base: Base) -> Adapter:
    """The adapter of that name, checked. Raises RequestError (MODEL_NOT_FOUND) that says what is wrong with it."""
    if not is_name(name) or not (folder / name / CONFIG).is_file():
        raise missing(name)
    path = folder / name
    try:
        config = _read_config(path / CONFIG)
        check_config(config, base)
        weight_files.check_file(path / WEIGHTS)
        check_tensors(weight_files.shapes(path / WEIGHTS), config, base)
        revision = revision_of(path)
    except FileNotFoundError as error:
        raise _refused(name, f"cannot be served: {Path(str(error.filename)).name} is missing") from None
    except (OSError, ValueError, ConfigError) as error:
        said = str(error).replace(f"{path}/", "")
        raise _refused(name, f"cannot be served: {said}") from None
    return Adapter(AdapterRef(name, revision), path, _int(config, "r"))


def missing(name: str) -> RequestError:
    """There is no such adapter, as far as who asks may know."""
    return _refused(name, "does not exist or is not yours")


def changed(name: str) -> RequestError:
    """The version that was asked for is no longer there."""
    return _refused(name, "was replaced by another version meanwhile: ask again")


def tenants_of(path: Path) -> frozenset[str] | None:
    """The only tenants that the adapter exists for; None: everybody's. A file that cannot be understood closes the
    adapter to everybody, rather than opening it."""
    try:
        listed: object = json.loads((path / TENANTS).read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return frozenset()
    if not isinstance(listed, list):
        return frozenset()
    return frozenset(one for one in cast(list[object], listed) if isinstance(one, str))


def revision_of(path: Path) -> str:
    """What changes when the adapter does."""
    digest = hashlib.sha256()
    for name in (CONFIG, WEIGHTS):
        with (path / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def stamp(path: Path) -> tuple[int, ...]:
    """Changes when a file of the adapter is written; cheap. Raises OSError."""
    stats = [(path / name).stat() for name in (CONFIG, WEIGHTS)]
    with contextlib.suppress(FileNotFoundError):
        stats.append((path / TENANTS).stat())
    return tuple(part for stat in stats for part in (stat.st_mtime_ns, stat.st_size, stat.st_ino))


def keep(adapter: Adapter, folder: Path) -> Path:
    """A copy of this very version that nobody writes to, made where it is missing: an engine may read it again at any
    time, whatever becomes of the original. Raises RequestError when the original changed meanwhile, OSError."""
    kept = folder / str(adapter.ref)
    if kept.is_dir():
        return kept
    folder.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{adapter.ref.name}.", dir=folder))
    try:
        for name in (CONFIG, WEIGHTS):
            shutil.copyfile(adapter.path / name, fresh / name)
        if revision_of(fresh) != adapter.ref.revision:
            raise changed(adapter.ref.name)
        try:
            fresh.rename(kept)
        except OSError:
            if not kept.is_dir():  # another rank was first
                raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return kept


def check_config(config: Mapping[str, object], base: Base) -> None:
    """Raise ConfigError for an adapter of another base, of another kind, or too large."""
    if (kind := config.get("peft_type", "LORA")) != "LORA":
        raise ConfigError(f"it is a {kind} adapter, and only LoRA ones are served")
    made_for = str(config.get("base_model_name_or_path") or "")
    if made_for.rstrip("/").rsplit("/", 1)[-1] not in base.names:
        raise ConfigError(
            f"it was made for the base {made_for or '(none named)'!r}, and this is {_listed(base.names)}; if they are "
            f"the same weights, say so in base_model_name_or_path of {CONFIG}"
        )
    rank = config.get("r")
    if not isinstance(rank, int) or not 1 <= rank <= base.max_rank:
        raise ConfigError(f"its rank is {rank}, and max_adapter_rank is {base.max_rank}")
    if unknown := [name for name in _NOT_SERVED if config.get(name)]:
        raise ConfigError(f"it uses {_listed(unknown)}, which is not served")


def check_tensors(shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, object], base: Base) -> None:
    """Raise ConfigError when a matrix does not fit the base, or changes what cannot be changed here."""
    if not shapes:
        raise ConfigError("it has no weights")
    if not base.shapes:
        return
    expected = {name: (size_in, size_out) for name, size_in, size_out in base.shapes}
    seen: dict[tuple[str, str], set[str]] = {}
    for tensor, shape in shapes.items():
        found = _TENSOR.fullmatch(tensor)
        module = found[2] if found is not None else tensor
        if found is None or module not in expected:
            raise ConfigError(
                f"it changes {module}, and adapters of this model may change {_listed(base.modules)}"
            )
        if int(found[1]) >= base.num_layers:
            raise ConfigError(f"it changes layer {found[1]}, and this base has {base.num_layers}")
        fits = expected[module][found[3] == "B"]
        at = 1 if found[3] == "A" else 0
        if len(shape) != 2 or shape[at] != fits or not 1 <= shape[1 - at] <= base.max_rank:
            raise ConfigError(f"{tensor} is {list(shape)}, and this base wants {fits} there")
        seen.setdefault((found[1], module), set()).add(found[3])
    if halves := [where for where, parts in seen.items() if len(parts) == 1]:
        raise ConfigError(f"of layer {halves[0][0]}'s {halves[0][1]} one of the two matrices is missing")


def _read_config(path: Path) -> Mapping[str, object]:
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise ConfigError(f"{path} is larger than {MAX_CONFIG_BYTES:,} bytes")
    try:
        config: object = json.loads(path.read_text())
    except ValueError as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise ConfigError(f"{path} is no JSON object")
    return cast(Mapping[str, object], config)


def _refused(name: str, why: str) -> RequestError:
    shown = name if len(name) <= 64 else name[:61] + "…"
    return RequestError(Reason.MODEL_NOT_FOUND, f"the adapter '{shown}' {why}", param="model")


def _listed(names: object) -> str:
    return ", ".join(sorted(str(one) for one in cast(tuple[object, ...], names)))


def _int(config: Mapping[str, object], key: str, default: int = 0) -> int:
    value = config.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else default
