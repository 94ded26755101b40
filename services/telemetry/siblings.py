"""Figures of all gateways that share a port on this host, so that a scrape of any of them shows every one.

Rules: a folder with one file per process, written whole and renamed, once a second by a thread; no locks and
no sockets. Counters of different processes are told apart by a label `gateway`, not added up here: a process
that ends would otherwise look to Prometheus like every counter starting again.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from .metrics import FamilySample, Sample

EVERY_S = 1.0
FRESH_S = 10.0
SUFFIX = ".figures"

_ENCODE = msgspec.msgpack.Encoder().encode
_DECODE = msgspec.msgpack.Decoder(tuple[FamilySample, ...]).decode


def shared_folder(port: int) -> Path:
    """The folder for the gateways behind `port`, private to this user. Raises OSError."""
    folder = Path(tempfile.gettempdir()) / f"expertmesh-{os.getuid()}-{port}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid() or folder.is_symlink():
        raise PermissionError(f"{folder} belongs to somebody else")
    return folder


class Siblings:
    """This process's place among its siblings. `name` is unique on the host."""

    def __init__(self, folder: Path, name: str, snapshot: Callable[[], Iterable[FamilySample]]) -> None:
        self.name = name
        self._folder, self._snapshot = folder, snapshot
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="share-figures", daemon=True)

    def start(self) -> None:
        """Begin to publish."""
        self._thread.start()

    def close(self) -> None:
        """Take our figures away."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2.0)
        with suppress(OSError):
            (self._folder / f"{self.name}{SUFFIX}").unlink()

    def publish(self) -> None:
        """Write our figures now. Raises OSError."""
        target = self._folder / f"{self.name}{SUFFIX}"
        draft = target.with_suffix(".draft")
        draft.write_bytes(_ENCODE(tuple(self._snapshot())))
        draft.replace(target)

    def families(self, now_wall_s: float | None = None) -> list[Sequence[FamilySample]]:
        """Our figures as they are now, and those that siblings wrote in the last ten seconds, each
        labelled."""
        now_wall_s = time.time() if now_wall_s is None else now_wall_s
        return [labelled(self._snapshot(), self.name), *self._others(now_wall_s)]

    def _others(self, now_wall_s: float) -> Iterator[Sequence[FamilySample]]:
        for path in sorted(self._folder.glob(f"*{SUFFIX}")):
            if path.stem == self.name:
                continue
            with suppress(OSError, msgspec.MsgspecError):  # it ended just now, or speaks another version
                if now_wall_s - path.stat().st_mtime < FRESH_S:
                    yield labelled(_DECODE(path.read_bytes()), path.stem)

    def _run(self) -> None:
        while not self._ended.wait(EVERY_S):
            with suppress(OSError):
                self.publish()


def labelled(families: Iterable[FamilySample], gateway: str) -> tuple[FamilySample, ...]:
    """The same figures with one label more."""
    return tuple(
        [
            FamilySample(
                msgspec.structs.replace(family.metric, labels=(*family.metric.labels, "gateway")),
                tuple([Sample((*one.labels, gateway), one.value, one.counts) for one in family.samples]),
            )
            for family in families
        ]
    )
