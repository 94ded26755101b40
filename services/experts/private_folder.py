"""A folder that appears whole or not at all, private to its owner while it is filled and after.

Rules: knows folders and one lock; not what is in the files. An attempt that fails is removed; one that was killed is
removed by the next for the same target: the lock that a living attempt holds on its folder is then free.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ..errors import ConfigError


def created(path: Path) -> BinaryIO:
    """A new file that its owner alone may read."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


@contextmanager
def published(target: Path) -> Generator[Path]:
    """A private fresh folder that becomes `target` when all went well, and is removed when not."""
    if target.exists() or target.is_symlink():
        raise ConfigError(f"{target} is there already")
    prefix = f".{target.name}.part-"
    try:
        for leftover in target.parent.glob(f"{prefix}*"):
            _sweep(leftover)
        fresh = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
    except OSError as error:
        raise ConfigError(f"cannot make a folder in {target.parent}: {error.strerror}") from None
    lock = os.open(fresh, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield fresh
        for path in fresh.rglob("*"):
            _sync(path)
        fresh.rename(target)
        _sync(target.parent)
    except OSError as error:
        raise ConfigError(f"cannot write {target}: {error.strerror}") from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        os.close(lock)


def _sweep(leftover: Path) -> None:
    """Remove what a killed attempt left; one that still runs holds its lock."""
    lock = os.open(leftover, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(leftover)
    except BlockingIOError:
        pass
    finally:
        os.close(lock)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
