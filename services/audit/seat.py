"""One chain's folder, held by one process: its files, its signing key, its lock.

Rules: a shell, of plain system calls; decides nothing. Everything may raise OSError. Files grow by `append` alone, all
or nothing: bytes of a failed one are cut off before the next.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import tempfile
from contextlib import suppress
from pathlib import Path

import msgspec

from .report import ChainFiles, State
from .segments import LOCK_FILE, STATE_FILE, chain_name, in_order

MAX_SEATS = 1024


def try_folder(directory: Path) -> None:
    """Make it, and a file in it that is gone again. Raises OSError where a gateway's Seat would not get that far."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o750)
    descriptor, name = tempfile.mkstemp(prefix=".", dir=directory)
    os.close(descriptor)
    os.unlink(name)


class Seat:
    """The first free folder of this host in `directory`; a gateway that comes back finds its own again. Raises OSError:
    it cannot be made, or all are taken."""

    def __init__(self, directory: Path, host: str) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o750)
        self.directory = directory
        self._fd = -1
        self._whole = self._written = 0
        for number in range(MAX_SEATS):
            self.name = chain_name(host, number)
            self.folder = directory / self.name
            self.folder.mkdir(exist_ok=True, mode=0o750)
            self._lock = os.open(self.folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                os.close(self._lock)
        raise OSError(f"all {MAX_SEATS} folders of {host} in {directory} are taken")

    def names(self) -> list[str]:
        """Its files, in order."""
        return in_order(os.listdir(self.folder))

    def read(self, name: str) -> bytes:
        """A whole file."""
        return (self.folder / name).read_bytes()

    def first_line(self, name: str) -> bytes:
        """Without its newline."""
        return first_line(self.folder / name)

    def begin(self, name: str) -> None:
        """`append` goes to this new file from now on. One that a failed `append` left empty is taken again."""
        self.end()
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._fd = os.open(self.folder / name, flags, 0o640)
        self._whole = 0
        self._written = os.fstat(self._fd).st_size
        self._sync_folder()

    def append(self, data: bytes) -> None:
        """On the disk when this returns; not in the file, or cut off by the next, when it raises."""
        if self._written != self._whole:
            os.ftruncate(self._fd, self._whole)
            self._written = self._whole
        view = memoryview(data)
        while view:
            num = self._write(self._fd, view)
            self._written += num
            view = view[num:]
        self._sync(self._fd)
        self._whole = self._written

    @property
    def num_bytes(self) -> int:
        """Of the file that grows."""
        return self._whole

    def end(self) -> None:
        """Close the file that grows. A rest that never was whole goes first."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            if self._written != self._whole:
                with suppress(OSError):
                    os.ftruncate(fd, self._whole)
            os.close(fd)

    def state(self) -> State | None:
        """None where there is none."""
        return read_state(self.folder)

    def save_state(self, state: State) -> None:
        """Replaces the one before, whose seed is nowhere afterwards (as far as the disk forgets)."""
        temporary = self.folder / f".{STATE_FILE}.{secrets.token_hex(4)}"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            try:
                self._write(fd, memoryview(msgspec.json.encode(state)))
                self._sync(fd)
            finally:
                os.close(fd)
            os.replace(temporary, self.folder / STATE_FILE)
        except OSError:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        self._sync_folder()

    def remove(self, name: str) -> None:
        """A file whose time is over."""
        (self.folder / name).unlink(missing_ok=True)

    def close(self) -> None:
        """Let others have the seat."""
        self.end()
        os.close(self._lock)

    def _sync_folder(self) -> None:
        fd = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    # what tests let fail ---------------------------------------------------------------------------------

    def _write(self, fd: int, data: memoryview) -> int:
        return os.write(fd, data)

    def _sync(self, fd: int) -> None:
        os.fsync(fd)


def first_line(path: Path) -> bytes:
    """Without its newline; the rest is not read."""
    with open(path, "rb") as file:
        return file.readline().rstrip(b"\n")


def read_state(folder: Path) -> State | None:
    """The state in a chain's folder. Raises OSError where it may not be read."""
    try:
        return msgspec.json.decode((folder / STATE_FILE).read_bytes(), type=State)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def chains_in(directory: Path) -> list[ChainFiles]:
    """Every chain of a directory, as verify.py wants it. Raises OSError."""
    return [
        _files_of(folder)
        for folder in sorted(directory.iterdir())
        if folder.is_dir() and ((folder / LOCK_FILE).exists() or in_order(os.listdir(folder)))
    ]


def _files_of(folder: Path) -> ChainFiles:
    try:
        state, missing = read_state(folder), not (folder / STATE_FILE).exists()
    except PermissionError:  # an auditor who may not sign
        state, missing = None, False
    names = tuple(in_order(os.listdir(folder)))
    return ChainFiles(
        folder.name,
        names,
        read=lambda name: (folder / name).read_bytes(),
        first_line=lambda name: first_line(folder / name),
        state=state,
        state_missing=missing,
    )
