"""A CPU rank's engine core as a fork of the rank, which has imported vLLM already.

Rules: the rank's process only, installed by vllm_cpu_plugin.py at the versions that it was tried on, and only for ranks
of one core: with more, the engine core needs libraries that only a new process can preload (vllm/platforms/cpu.py).

vLLM spawns its engine core anew inside Ray actors and on every CPU. That is a second import of vLLM, 12 s of a core for
each rank and a third of its memory, on machines that have few of either. What a fork would share and must not is closed
first thing: a socket that is open here too would keep a killed rank's peers from seeing its end.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from contextlib import suppress
from multiprocessing.context import ForkContext, ForkProcess
from pathlib import Path
from typing import Any

FIRST_OTHER_FD = 3
LONGEST_NAME = 15


class _Core(ForkProcess):
    """The engine core's process."""

    def run(self) -> None:
        signal.set_wakeup_fd(-1)
        _close_sockets()
        # For `top` and `ps`: the rank's title, which a fork inherits, cannot be changed by vLLM's library for it.
        Path("/proc/self/comm").write_text(f"VLLM::{self.name}"[:LONGEST_NAME])
        super().run()


class CoreForks(ForkContext):
    """In place of a multiprocessing context: its processes are engine cores."""

    Process = _Core  # type: ignore[assignment]  # a ForkProcess, as promised


def _close_sockets() -> None:
    for name in os.listdir("/proc/self/fd"):
        number = int(name)
        with suppress(OSError):
            if number >= FIRST_OTHER_FD and os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                os.close(number)


def install() -> None:
    """Engine cores of this process are forks, where this rank has one core."""
    from vllm.v1.engine import utils

    module: Any = utils
    shipped = module.get_mp_context
    module.get_mp_context = lambda: _context() or shipped()


def _context() -> Any:
    bound = os.environ.get("VLLM_CPU_OMP_THREADS_BIND", "")
    one_core = bound.replace("|", "").isdecimal()  # or one for each of its workers, which are new processes
    alone = multiprocessing.parent_process() is None  # not inside the engine core itself
    return CoreForks() if one_core and alone else None
