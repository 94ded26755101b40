"""What Linux says about processes: who descends from whom, what shared memory each holds, and how to end them.

Rules: reads /proc, sends SIGKILL to, and unlinks the shared memory of, processes that were handed to it; a pid is
always paired with its start time, so that a number that was given away again is never taken for the old process.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_PF_EXITING = 0x4
"""Bit of a task's flags from the moment on that it exits (Linux, include/linux/sched.h)."""
_SHM = re.compile(r"/dev/shm/(?:psm_|vllm_dist_|sem\.|mp-)[^\s/]+|/dev/shm/[^\s/]*cpushm[^\s/]*")


@dataclass(frozen=True)
class Process:
    """One process: its pid and when it started, in clock ticks after boot."""

    pid: int
    started: int

    @property
    def alive(self) -> bool:
        """Neither gone nor a zombie."""
        found = _stat(self.pid)
        return found is not None and found[1] == self.started and found[2] != "Z"

    @property
    def ending(self) -> bool:
        """Gone, or on its way out. A killed process that holds a GPU takes about a second to give its memory back, and
        its parent hears of its death only after that."""
        fields = _fields(self.pid)
        if fields is None or int(fields[19]) != self.started or fields[0] in "ZX":
            return True
        return bool(int(fields[6]) & _PF_EXITING)

    @property
    def halted(self) -> bool:
        """Stopped by a signal (SIGSTOP), as no debugger stops it."""
        fields = _fields(self.pid)
        return fields is not None and int(fields[19]) == self.started and fields[0] == "T"


def process(pid: int) -> Process | None:
    """The process that has this pid now."""
    found = _stat(pid)
    return Process(pid, found[1]) if found is not None else None


def title(one: Process) -> str:
    """Its command line, which a process may change; empty when it is gone."""
    try:
        return (
            (_PROC / str(one.pid) / "cmdline")
            .read_bytes()
            .replace(b"\0", b" ")
            .decode(errors="replace")
            .strip()
        )
    except OSError:
        return ""


def with_descendants(roots: Iterable[int]) -> list[Process]:
    """The roots that live and everything below them, parents first."""
    table = {pid: found for pid in _pids() if (found := _stat(pid)) is not None}
    children: dict[int, list[int]] = {}
    for pid, (parent, _, _) in table.items():
        children.setdefault(parent, []).append(pid)
    todo = [pid for pid in roots if pid in table]
    found_all: list[Process] = []
    while todo:
        pid = todo.pop(0)
        found_all.append(Process(pid, table[pid][1]))
        todo += children.get(pid, [])
    return found_all


def shared_memory(processes: Iterable[Process]) -> set[Path]:
    """Segments of multiprocessing and vLLM that these processes have mapped or open."""
    found: set[str] = set()
    for one in processes:
        with suppress(OSError):
            found.update(_SHM.findall((_PROC / str(one.pid) / "maps").read_text()))
        with suppress(OSError):
            for fd in (_PROC / str(one.pid) / "fd").iterdir():
                with suppress(OSError):
                    found.update(_SHM.findall(os.readlink(fd)))
    return {Path(path) for path in found}


def end(processes: Iterable[Process], segments: Iterable[Path] = (), patience_s: float = 5.0) -> None:
    """Kill those that still live, wait until they are gone, and unlink the segments they leave."""
    left = [one for one in processes if one.alive]
    for one in left:
        with suppress(ProcessLookupError):
            os.kill(one.pid, signal.SIGKILL)
    until = time.monotonic() + patience_s
    while any(one.alive for one in left) and time.monotonic() < until:
        time.sleep(0.01)
    for path in segments:
        with suppress(OSError):
            path.unlink()


def _pids() -> list[int]:
    return [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit()]


def _fields(pid: int) -> list[str] | None:
    """What /proc/PID/stat says after the name, state first; None when the process is gone."""
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    return text.rpartition(")")[2].split()


def _stat(pid: int) -> tuple[int, int, str] | None:
    """(parent, start time, state); None when the process is gone."""
    fields = _fields(pid)
    return (int(fields[1]), int(fields[19]), fields[0]) if fields is not None else None
