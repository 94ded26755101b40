"""Processes of a benchmark: started in groups of their own, their CPU time read from /proc, ended whatever happens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def cpu_s(pids: Iterable[int]) -> float:
    """User and system seconds of processes; one that is gone counts nothing."""
    total = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def tree(pid: int) -> list[int]:
    """A process and its descendants, also those in other process groups."""
    children: dict[int, list[int]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                parent = int(Path(entry.path, "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found, todo = [], [pid]
    while todo:
        found.append(current := todo.pop())
        todo += children.get(current, [])
    return found


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


class Group:
    """Processes that end together."""

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[str]] = []

    def start(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        log: Path | None = None,
        pipe: bool = False,
    ) -> subprocess.Popen[str]:
        """Start a command; its output goes to `log`, or to a pipe that the caller reads."""
        sink = log.open("a") if log is not None else subprocess.DEVNULL
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE if pipe else sink, stderr=sink, text=True,
            env={**os.environ, **(env or {})}, start_new_session=True,
        )  # fmt: skip
        self._processes.append(process)
        return process

    def python(self, module: str, *arguments: str, **options: object) -> subprocess.Popen[str]:
        """Start one of our modules."""
        return self.start([sys.executable, "-m", module, *arguments], **options)  # type: ignore[arg-type]

    def stop(self) -> None:
        """SIGTERM to each process, then SIGKILL to what is left of its tree."""
        trees = [(process, tree(process.pid)) for process in self._processes]
        for process, _ in trees:
            if process.poll() is None:
                process.terminate()
        deadline_s = time.monotonic() + 15
        for process, pids in trees:
            while process.poll() is None and time.monotonic() < deadline_s:
                time.sleep(0.05)
            for pid in pids:
                try:
                    if pid != process.pid or process.poll() is None:
                        os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            process.wait()
        self._processes.clear()


def wait_http(url: str, within_s: float = 90.0) -> None:
    """Until GET answers 200."""
    deadline_s = time.monotonic() + within_s
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2) as response:
                if response.status == 200:
                    return
        except OSError:
            pass
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"{url} did not answer within {within_s} s")
        time.sleep(0.1)
