"""Ends what a rank started when the rank itself is killed outright.

vLLM's engine core does not notice that its parent is gone: after a SIGKILL of the rank it would hold its core, its
memory or its GPU for ever, and the group's next rank 0 could not start. So each rank has a guard, a small process in a
session of its own that waits at a pipe: when the pipe closes without a word, the rank is dead, and all that descended
from it is ended, shared memory included.

Rules: standard library, linux_processes.py and child_environment.py only (it is started again and again, and must stay
small).
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from ..child_environment import child_environment
from . import linux_processes

LOOK_EVERY_S = 1.0
_READY, _DONE = b"r", b"d"


class OrphanGuard:
    """The rank's end of the pipe. Start it before the first child."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=child_environment(),
            start_new_session=True,
        )
        # An engine core may be a fork of the rank: with the pipe open there, too, the rank's end would go unnoticed.
        os.register_at_fork(after_in_child=self._let_go)

    def ready(self) -> None:
        """All children are there: the guard looks once more, says so, and then only waits."""
        self._say(_READY)
        assert self._process.stdout is not None
        self._process.stdout.read(1)

    def close(self) -> None:
        """The rank ends in order and cleans up itself."""
        self._say(_DONE)
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _let_go(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError, ValueError):
                    pipe.raw.close()  # type: ignore[attr-defined]  # buffered: without what its lock guards

    def _say(self, word: bytes) -> None:
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.write(word)
            self._process.stdin.flush()


def watch(parent: int, pipe: int, answers: int) -> None:
    """Look at `parent`'s descendants until told that they are complete; return when told that all is well; end them
    all when the pipe closes."""
    found: list[linux_processes.Process] = []
    segments: set[Path] = set()
    ready = False
    while True:
        readable, _, _ = select.select([pipe], [], [], None if ready else LOOK_EVERY_S)
        word = os.read(pipe, 1) if readable else None
        if word == _DONE:
            return
        if word == b"":
            break
        below = [
            one for one in linux_processes.with_descendants([parent]) if one.pid not in (parent, os.getpid())
        ]
        found, segments = below, linux_processes.shared_memory(below)
        if word == _READY:
            ready = True
            os.write(answers, _READY)
    linux_processes.end(found, segments | linux_processes.shared_memory(found))


if __name__ == "__main__":
    watch(int(sys.argv[1]), sys.stdin.fileno(), sys.stdout.fileno())
