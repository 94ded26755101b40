"""Runs one function in a child process and sees to it that nothing which it started outlives it.

Rules: standard library and /proc only, because it must be up before anything heavy is imported and alive after
everything heavy has died. Linux: the guard is a child subreaper, so orphans of orphans (a Ray worker's engine, an
engine's worker) become its children instead of init's, and it can find and end exactly those.

    terminal or make ── guard (this process) ── child: the function, in a session of its own
                                                  └── Ray, replicas, engines, the store

Ctrl-C reaches the guard alone; it asks the child once, with SIGINT (KeyboardInterrupt there), to end in order. A
second Ctrl-C, a patience of `PATIENCE_S`, or the child's own death end what is left by SIGKILL, by pid.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from ..experts import linux_processes

PATIENCE_S = 30
AGAIN_S = 1.0
"""A KeyboardInterrupt may be lost where Python cannot raise it, inside an import hook for one: it is raised again until
somebody has it (`heard`)."""
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def run(function: Callable[[], int]) -> int:
    """The function's exit code, 0 once it was asked to end and did; 128 + signal when the child was killed by one."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    sys.stdout.flush()
    sys.stderr.flush()
    guard_pid = os.getpid()
    child = os.fork()
    if child == 0:
        os._exit(_child(function, guard_pid))
    return _Guard(child).wait()


def _child(function: Callable[[], int], guard_pid: int) -> int:
    os.setsid()
    asked: list[int] = []

    def interrupt(number: int, _frame: object) -> None:
        asked.append(number)
        signal.setitimer(signal.ITIMER_REAL, AGAIN_S)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)  # also where a background job inherited it ignored
    signal.signal(signal.SIGALRM, interrupt)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGINT)  # a guard that is killed outright still ends us in order
    if os.getppid() != guard_pid:
        return 1
    code = 1
    try:
        code = function()
    except BaseException as error:
        heard()
        # Once we were asked to end, whatever a library makes of the interrupt is the end that was asked for.
        if asked:
            code = 0
        elif isinstance(error, SystemExit):
            code = error.code if isinstance(error.code, int) else 1
        else:
            traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return code


def heard() -> None:
    """The function ends: an interrupt on the way out would only leave things undone."""
    signal.setitimer(signal.ITIMER_REAL, 0)


class _Guard:
    def __init__(self, child: int) -> None:
        self._child = child
        self._asked = 0
        self._segments: set[Path] = set()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._ask)
        signal.signal(signal.SIGALRM, self._kill)

    def wait(self) -> int:
        """Reap everything until the child is gone, then end what it left."""
        while True:
            pid, status = os.waitpid(-1, 0)
            if pid == self._child:
                break
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
            signal.signal(number, signal.SIG_IGN)
        left = self._descendants()
        self._segments |= linux_processes.shared_memory(left)
        while left:  # a process may be born while its parent is being killed
            linux_processes.end(left)
            self._reap()
            left = [one for one in self._descendants() if one.alive]
        linux_processes.end((), self._segments)
        code = os.waitstatus_to_exitcode(status)
        if self._asked and code >= 0:  # also where a library ended it on its way out
            return 0
        return code if code >= 0 else 128 - code

    def _ask(self, number: int, _frame: object) -> None:
        self._asked += 1
        if self._asked == 1:
            self._segments = linux_processes.shared_memory(self._descendants())
            os.kill(self._child, signal.SIGINT)
            signal.alarm(PATIENCE_S)
        elif number == signal.SIGINT:
            self._kill(number, None)

    def _kill(self, _number: int, _frame: object) -> None:
        os.kill(self._child, signal.SIGKILL)

    def _descendants(self) -> list[linux_processes.Process]:
        own = os.getpid()
        return [one for one in linux_processes.with_descendants([own]) if one.pid != own]

    @staticmethod
    def _reap() -> None:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl failed")
