"""A second process of the queue that waits: when the first dies it goes on at the same address, within milliseconds.

Rules: standard library and msgspec; knows no queue. The first process (uvloop_process.py) starts it and hands it its
listening sockets, which stay open while either lives: whoever dials in between waits in the kernel's line until the
standby accepts. So neither gateways and engines nor a keeper need anybody to tell them where the queue is now, also
where the replica that would tell them died together with it. What the queue knew comes back from its clients, as
always.

A standby that dies is replaced. It ends with what the queue ends with, and when the queue ends in order.
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import subprocess
import sys
from contextlib import suppress

import msgspec

from ..child_environment import child_environment

log = logging.getLogger(__name__)

START_AFTER_S = 3.0
"""After the queue itself: a mesh that starts has more urgent things to load."""
SUCCEED_AFTER_S = 0.5
"""After one that went on where another died: its clients have come back by then, and who kills one may kill two."""

TITLE = "queue-standby"
"""What `ps -o comm` shows of one that is ready."""


class Inheritance(msgspec.Struct, frozen=True):
    """What a standby is told: whom it watches, on what it will listen, and what the queue is configured as."""

    active_pid: int
    links_fd: int
    keepers_fd: int
    key: bytes
    config: bytes


class Standby:
    """Keeps one standby process. `name` and `owner_pid` as of the queue's own process."""

    def __init__(self, name: str, owner_pid: int, inheritance: Inheritance) -> None:
        self._arguments = [name, str(owner_pid)]
        self._inheritance = inheritance
        self._timer: asyncio.TimerHandle | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._pidfd = -1

    @property
    def pid(self) -> int:
        """0: there is none that could go on now."""
        if self._process is None:
            return 0
        with suppress(OSError), open(f"/proc/{self._process.pid}/comm") as comm:
            return self._process.pid if comm.read().strip() == TITLE else 0
        return 0

    def start_later(self, after_s: float = START_AFTER_S) -> None:
        self._timer = asyncio.get_running_loop().call_later(after_s, self._start)

    def _start(self) -> None:
        told = self._inheritance
        for fd in (told.links_fd, told.keepers_fd):
            os.set_inheritable(fd, True)
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", f"{__package__}.uvloop_process", *self._arguments, "standby"],
                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, pass_fds=(told.links_fd, told.keepers_fd),
                env=child_environment(), start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            log.warning("the queue has no standby: %s", error)
            self.start_later()
            return
        assert process.stdin is not None
        with process.stdin as stdin, suppress(BrokenPipeError):
            stdin.write(msgspec.msgpack.encode(told))
        self._process, self._pidfd = process, os.pidfd_open(process.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._ended)

    def _ended(self) -> None:
        log.warning("the queue's standby died")
        self._reap()
        self.start_later()

    def _reap(self) -> None:
        if self._process is not None:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """The queue ends in order, and nobody is to go on."""
        if self._timer is not None:
            self._timer.cancel()
        if self._process is not None:
            self._process.kill()
            self._reap()


def title(text: str) -> None:
    """Name this process for `ps -o comm`, with at most 15 characters."""
    with open("/proc/self/comm", "w") as comm:
        comm.write(text)


def wait(active_pid: int, owner_pid: int) -> bool:
    """In the standby: blocks until the queue's process is gone. False: the owner is gone as well, so end, too."""
    poll = select.poll()
    fds: dict[int, int] = {}
    for pid in (owner_pid, active_pid):
        try:
            fds[pid] = os.pidfd_open(pid)
        except ProcessLookupError:
            return pid == active_pid
        poll.register(fds[pid], select.POLLIN)
    gone = {fd for fd, _ in poll.poll()}
    for fd in fds.values():
        os.close(fd)
    return fds[owner_pid] not in gone
