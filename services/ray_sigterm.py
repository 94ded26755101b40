"""SIGTERM to a replica's process, told to its deployment, which then drains and ends the process by itself.

Left to Ray (2.60), a worker's exit waits until each call that the worker has made is answered. A replica always has one
open, Serve's long poll of the controller, which is answered after 30 to 60 s. All that time the replica serves on,
nobody is told, and then it ends in the middle of what it has (docs/benchmarks/2026-11-23-survival.md).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import ray
from ray._private import worker

log = logging.getLogger(__name__)

RAYS_EXIT = "raise_sys_exit_with_custom_error_message"


def tell(told: Callable[[], None]) -> bool:
    """From now on SIGTERM calls `told` on the running loop, each time it comes, and is not an end in itself. False, and
    nothing changes, where this process is not a worker of Ray's (Serve's local testing mode)."""
    # Only the main thread may set a handler, and Ray keeps that one for itself, in compiled code that looks for signals
    # now and then. So Ray's own handler stays, and the exit that it calls is not one any more.
    if worker.global_worker.mode != ray.WORKER_MODE:
        return False
    if not hasattr(worker, RAYS_EXIT):
        log.warning("SIGTERM is left to this version of Ray, whose handler we do not know")
        return False
    loop = asyncio.get_running_loop()

    def instead(message: str, exit_code: int = 0) -> None:
        loop.call_soon_threadsafe(told)

    setattr(worker, RAYS_EXIT, instead)
    return True
