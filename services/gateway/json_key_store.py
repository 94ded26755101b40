"""API keys in a JSON file: {"pepper": hex, "keys": [KeyRecord, …]}, mode 600, written atomically.

Who changes it reads and writes it under a lock of its own (`.NAME.lock` beside it): of two commands at once neither
loses the other's key. Who only reads needs none.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from ..errors import ConfigError
from ..quota.allowance import NOTHING_LIMITED, Allowance
from .identity import Identity, JournalUse, KeyRecord, Permission, Principal, digest_key


class KeyFile(msgspec.Struct, frozen=True):
    """The file's content. `pepper` is secret; without it the digests say nothing."""

    pepper: str
    keys: tuple[KeyRecord, ...] = ()


def load(path: Path) -> KeyFile:
    """Raises ConfigError when the file is missing or broken."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=KeyFile)
    except FileNotFoundError as error:
        raise ConfigError(
            f"no API keys: {path} does not exist; make one with `expertmesh keys add`"
        ) from error
    except OSError as error:
        raise ConfigError(f"API keys cannot be read from {path}: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise ConfigError(f"{path} is not a key file: {error}") from error


def save(path: Path, content: KeyFile) -> None:
    """Replace the file atomically, readable by its owner alone. Raises ConfigError where that cannot be."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(content)))
            file.flush()
            os.fsync(descriptor)
        temporary.replace(path)
    except OSError as error:
        raise ConfigError(f"API keys cannot be written to {path}: {error.strerror}") from error


def change(path: Path, key_id: str, changed: Callable[[KeyRecord], KeyRecord | None]) -> None:
    """Every record of that name as `changed` makes it; None: none of it is left. Raises ConfigError: no such key."""
    with _alone(path):
        content = load(path)
        if all(record.key_id != key_id for record in content.keys):
            raise ConfigError(f"{path} has no key named {key_id!r}")
        records = (changed(record) if record.key_id == key_id else record for record in content.keys)
        kept = tuple(record for record in records if record is not None)
        save(path, KeyFile(pepper=content.pepper, keys=kept))


def add(
    path: Path,
    key: str,
    *,
    key_id: str,
    tenant: str,
    bands: tuple[str, ...] = ("standard",),
    permissions: tuple[Permission, ...] = (Permission.GENERATE,),
    weight: float = 1.0,
    journal: JournalUse = "asked",
    semantic_cache: float = 0.0,
    models: tuple[str, ...] = (),
    allowance: Allowance = NOTHING_LIMITED,
    may_leave: bool = False,
) -> KeyRecord:
    """Add (or replace, by `key_id`) a key and return its record; makes the file when there is none."""
    with _alone(path):
        content = load(path) if path.exists() else KeyFile(pepper=secrets.token_hex(32))
        record = KeyRecord(
            key_id=key_id,
            digest=digest_key(bytes.fromhex(content.pepper), key),
            tenant=tenant,
            bands=bands,
            permissions=permissions,
            weight=weight,
            journal=journal,
            semantic_cache=semantic_cache,
            models=models,
            allowance=allowance,
            may_leave=may_leave,
        )
        kept = tuple(other for other in content.keys if other.key_id != key_id)
        save(path, KeyFile(pepper=content.pepper, keys=(*kept, record)))
    return record


def identity(
    path: Path,
    bands: Collection[str] | None = None,
    tokens: Callable[[str], Principal | None] | None = None,
) -> Identity:
    """An Identity over the file's keys, in a mesh with these priority bands. Raises ConfigError."""
    content = load(path)
    return Identity(bytes.fromhex(content.pepper), content.keys, bands, tokens)


@contextmanager
def _alone(path: Path) -> Generator[None]:
    """Nobody else changes the file until the block ends. The lock's file stays, because who removes one may remove
    another's. Raises ConfigError where the folder cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"API keys cannot be written to {path}: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
