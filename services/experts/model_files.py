"""A folder of model files that can be trusted: written at once or not at all, every byte known by hash.

Rules: knows folders, hashes and one lock; not what is in the files. `manifest.json` names every file's size and
SHA-256. A full check reads everything (about a second per GB); it leaves a stamp of what it saw (size, mtime,
inode), and as long as the stamp fits, later checks cost microseconds. Whoever can change a file *and* its stamp
owns the user's account already.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

MANIFEST = "manifest.json"
STAMP = ".verified.json"


class DamagedModel(Exception):
    """A file is missing, has another size or another hash. The message names it."""


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(folder: Path, about: dict[str, object]) -> str:
    """Hash every file of `folder` into its manifest, with `about` beside them. Returns the revision: the hash of
    all names and hashes."""
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name not in (MANIFEST, STAMP)
    }
    revision = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:16]
    manifest = {**about, "revision": revision, "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))
    _write_stamp(folder, files)
    return revision


def check(folder: Path, deep: bool = False) -> dict[str, object]:
    """The manifest of a sound folder. `deep` reads every byte even when the stamp fits. Raises DamagedModel."""
    try:
        manifest: dict[str, object] = json.loads((folder / MANIFEST).read_text())
        files = manifest["files"]
        assert isinstance(files, dict)
    except (OSError, ValueError, KeyError, AssertionError) as error:
        raise DamagedModel(f"{folder} has no readable manifest: {error}") from error
    try:
        sizes = {name: (folder / name).stat().st_size for name in files}
    except OSError as error:
        raise DamagedModel(f"{error.filename} is missing") from error
    for name, entry in files.items():
        if sizes[name] != entry["bytes"]:
            raise DamagedModel(f"{folder / name} has {sizes[name]} bytes, not {entry['bytes']}")
    if not deep and _read_stamp(folder) == _stamp(folder, files):
        return manifest
    for name, entry in files.items():
        if sha256_of(folder / name) != entry["sha256"]:
            raise DamagedModel(f"{folder / name} has another SHA-256 than its manifest says")
    _write_stamp(folder, files)
    return manifest


def publish(target: Path, build: Callable[[Path], None]) -> None:
    """Let `build` fill a fresh folder beside `target`, then move it there in one step. What was there is removed
    after. Call it under `locked`. On an error nothing is left behind."""
    fresh = target.with_name(f".{target.name}.new")
    old = target.with_name(f".{target.name}.old")
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        build(fresh)
        if target.exists():
            target.rename(old)
        fresh.rename(target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def locked(folder: Path) -> Generator[None]:
    """One process at a time. The lock goes with the process, however it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _stamp(folder: Path, files: Mapping[str, object]) -> dict[str, list[int]]:
    stats = {name: (folder / name).stat() for name in sorted(files)}
    return {name: [stat.st_size, stat.st_mtime_ns, stat.st_ino] for name, stat in stats.items()}


def _write_stamp(folder: Path, files: Mapping[str, object]) -> None:
    path = folder / STAMP
    try:
        part = path.with_name(f"{STAMP}.{os.getpid()}")
        part.write_text(json.dumps(_stamp(folder, files)))
        part.rename(path)
    except OSError:
        pass  # a read-only folder is checked in full every time


def _read_stamp(folder: Path) -> object:
    try:
        return json.loads((folder / STAMP).read_text())
    except (OSError, ValueError):
        return None
