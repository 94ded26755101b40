"""An encrypted model folder: made, checked and opened, a few chunks in memory at a time.

Rules: a shell over chunk_seal and model_key; knows folders and threads, not what is in the files. The folder holds

    encrypted.json   the envelope (model_key.py): replaced alone when the operator's key changes
    files.sealed     the list of files with bytes and SHA-256, sealed under the empty name
    NAME.sealed      each file, sealed under NAME (chunk_seal.py)

Names and sizes are readable, contents are not. A folder appears whole or not at all; what an attempt left that was
killed is swept by the next one (its lock is free). Opened folders are 0700 and on tmpfs, unless a disk is asked for.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar

from ..errors import ConfigError
from . import chunk_seal, model_files, model_key, weight_files
from .linux_mounts import file_system_of
from .private_folder import created, published

ENVELOPE = weight_files.ENCRYPTED
LIST = "files.sealed"
SUFFIX = ".sealed"
MEMORY_FILE_SYSTEMS = ("tmpfs", "ramfs")
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
MAX_WORKERS = 4
PART = f".{ENVELOPE}.part"

T = TypeVar("T")


@dataclass(frozen=True)
class Listed:
    """One file: its plain size and its hash in hex."""

    num_bytes: int
    sha256: str


@dataclass(frozen=True)
class Contents:
    """What a sealed folder holds, by name. `revision` is the one `model_files.write_manifest` gives the plain one."""

    files: Mapping[str, Listed]

    @property
    def num_bytes(self) -> int:
        return sum(one.num_bytes for one in self.files.values())

    @property
    def revision(self) -> str:
        apart = (model_files.MANIFEST, model_files.STAMP)
        entries = {name: entry for name, entry in _as_json(self.files).items() if name not in apart}
        return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()[:16]


def encrypt(source: Path, target: Path, key: model_key.ModelKey) -> Contents:
    """Seal every file of `source` into the new folder `target`. Raises ConfigError; `target` is then not there."""
    if (source / ENVELOPE).exists():
        raise ConfigError(f"{source} is encrypted already: `expertmesh model rekey` gives it another key")
    names = _plain_names(source)
    weight_files.check(source)
    data_key = os.urandom(chunk_seal.KEY_BYTES)
    with published(target) as fresh:

        def seal_one(name: str, stop: threading.Event) -> tuple[str, Listed]:
            digest, size = hashlib.sha256(), 0
            with (source / name).open("rb") as plain, created(fresh / (name + SUFFIX)) as sealed:

                def read() -> Generator[bytes]:
                    nonlocal size
                    for chunk in chunk_seal.chunks(plain):
                        digest.update(chunk)
                        size += len(chunk)
                        yield chunk

                for piece in chunk_seal.seal(read(), data_key, name):
                    if stop.is_set():
                        break
                    sealed.write(piece)
            return name, Listed(size, digest.hexdigest())

        contents = Contents(dict(sorted(_each(seal_one, names))))
        text = json.dumps({"files": _as_json(contents.files)}).encode()
        step = chunk_seal.CHUNK_BYTES
        pieces = (text[at : at + step] for at in range(0, len(text), step))
        with created(fresh / LIST) as sealed:
            sealed.writelines(chunk_seal.seal(pieces, data_key, ""))
        with created(fresh / ENVELOPE) as file:
            file.write(model_key.wrap(key, data_key).encode())
    return contents


def rekey(folder: Path, old: model_key.ModelKey, new: model_key.ModelKey) -> None:
    """Close the folder with another key: one small file is replaced, in one step. Raises ConfigError."""
    data_key, _ = _contents(folder, old)
    part = folder / PART
    try:
        part.unlink(missing_ok=True)
        with created(part) as file:
            file.write(model_key.wrap(new, data_key).encode())
        part.rename(folder / ENVELOPE)
    except OSError as error:
        raise ConfigError(f"cannot write {folder / ENVELOPE}: {error.strerror}") from None


def verify(folder: Path, key: model_key.ModelKey, revision: str = "") -> Contents:
    """Open every chunk and hash every file, write nothing. Raises ConfigError naming the first file that is wrong."""
    data_key, contents = _checked(folder, key, revision)
    _each(lambda name, stop: _open_one(folder, name, data_key, contents, None, stop), list(contents.files))
    return contents


def decrypt(
    folder: Path, target: Path, key: model_key.ModelKey, revision: str = "", on_disk: bool = False
) -> Contents:
    """Open the folder into the new folder `target` (0700). Raises ConfigError; no plain byte is then left.

    Refuses a `target` that is not in memory unless `on_disk`, and one without room. `revision`: refuse any other, so
    that nobody can put an older model of the same key in its place.
    """
    data_key, contents = _checked(folder, key, revision)
    kind = file_system_of(target.parent)
    if not on_disk and kind not in MEMORY_FILE_SYSTEMS:
        raise ConfigError(
            f"{target.parent} is on {kind}, not in memory (tmpfs, as /dev/shm): plain weights are not written there"
        )
    room = os.statvfs(target.parent)
    if (free := room.f_bavail * room.f_frsize) < contents.num_bytes and kind != "ramfs":
        raise ConfigError(
            f"{target.parent} has {free:,} bytes free, the model needs {contents.num_bytes:,} of them"
        )
    with published(target) as fresh:
        _each(
            lambda name, stop: _open_one(folder, name, data_key, contents, fresh, stop), list(contents.files)
        )
    return contents


def _open_one(
    folder: Path, name: str, data_key: bytes, contents: Contents, into: Path | None, stop: threading.Event
) -> None:
    digest = hashlib.sha256()
    path = folder / (name + SUFFIX)
    try:
        with path.open("rb") as sealed, created(into / name) if into else open(os.devnull, "wb") as plain:
            for chunk in chunk_seal.unseal(sealed, data_key, name):
                if stop.is_set():
                    return
                digest.update(chunk)
                plain.write(chunk)
    except chunk_seal.Unsealable as error:
        raise ConfigError(f"{path} is damaged: {error}") from None
    if digest.hexdigest() != contents.files[name].sha256:
        raise ConfigError(f"{path} is authentic, but not the file that the folder's list names")


def _checked(folder: Path, key: model_key.ModelKey, revision: str) -> tuple[bytes, Contents]:
    """Names, sizes and revision are right; contents are not read yet."""
    data_key, contents = _contents(folder, key)
    if revision and revision != contents.revision:
        raise ConfigError(f"{folder} holds revision {contents.revision}, not {revision}")
    there = set(_walk(folder)) - {ENVELOPE, LIST, PART}
    wanted = {name + SUFFIX: one for name, one in contents.files.items()}
    if missing := sorted(wanted.keys() - there):
        raise ConfigError(f"{folder / missing[0]} is missing")
    if extra := sorted(there - wanted.keys()):
        raise ConfigError(f"{folder / extra[0]} does not belong to the model: it is not in its list of files")
    for name, one in sorted(wanted.items()):
        size = (folder / name).stat().st_size
        if size != (right := chunk_seal.sealed_bytes(one.num_bytes)):
            raise ConfigError(f"{folder / name} is damaged: it has {size:,} bytes, not {right:,}")
    return data_key, contents


def _contents(folder: Path, key: model_key.ModelKey) -> tuple[bytes, Contents]:
    try:
        envelope = (folder / ENVELOPE).read_text(errors="replace")
    except FileNotFoundError:
        raise ConfigError(f"{folder} is no encrypted model: it has no {ENVELOPE}") from None
    except OSError as error:
        raise ConfigError(f"cannot read {folder / ENVELOPE}: {error.strerror}") from None
    try:
        data_key = model_key.unwrap(key, envelope)
        with (folder / LIST).open("rb") as sealed:
            text = b"".join(chunk_seal.unseal(sealed, data_key, ""))
    except ConfigError as error:
        raise ConfigError(f"{folder}: {error}") from None
    except chunk_seal.Unsealable as error:
        raise ConfigError(f"{folder / LIST} is damaged: {error}") from None
    except OSError as error:
        raise ConfigError(f"cannot read {folder / LIST}: {error.strerror}") from None
    entries: dict[str, dict[str, object]] = json.loads(text)["files"]  # authentic: we wrote it
    files = {name: Listed(int(str(one["bytes"])), str(one["sha256"])) for name, one in entries.items()}
    return data_key, Contents(files)


def _as_json(files: Mapping[str, Listed]) -> dict[str, dict[str, object]]:
    return {name: {"bytes": one.num_bytes, "sha256": one.sha256} for name, one in files.items()}


def _plain_names(folder: Path) -> list[str]:
    names = [name for name in _walk(folder) if PurePosixPath(name).name != model_files.STAMP]
    if pickled := [name for name in names if name.endswith(PICKLED)]:
        raise ConfigError(
            f"{folder / pickled[0]} is pickled, it runs code when it is loaded: safetensors only"
        )
    return names


def _walk(folder: Path) -> list[str]:
    """Every file below `folder`, by its path from there. A link to a file counts as the file (Hugging Face's caches
    are made of them); a link to a folder, and what is neither file nor folder, is refused."""
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder")
    found: list[str] = []
    for path in sorted(folder.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            continue
        if not path.is_file():
            raise ConfigError(f"{path} is neither a file nor a folder")
        found.append(path.relative_to(folder).as_posix())
    return found


def _each(work: Callable[[str, threading.Event], T], names: list[str]) -> list[T]:
    """`work` on every name, a few at once. The first error ends the others after their chunk, and is raised."""
    stop = threading.Event()
    with ThreadPoolExecutor(min(MAX_WORKERS, os.cpu_count() or 1)) as pool:
        try:
            return [one.result() for one in [pool.submit(work, name, stop) for name in names]]
        except BaseException as error:
            stop.set()
            pool.shutdown(cancel_futures=True)
            if isinstance(error, OSError):
                raise ConfigError(f"{error.filename or 'a file'}: {error.strerror}") from None
            raise
