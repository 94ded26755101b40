"""Calls that run in this gateway, and why one of them is cancelled: its client went, or the gateway goes.

Rules: tasks and a flag; what is told to whom is the call's own business (pipeline.py, embeddings.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from ..errors import ClientGone, MeshError, ServiceError
from ..outcome import Reason

CallTask = asyncio.Task[None]


class RunningCalls:
    """`ending`: the gateway goes now, and whoever is cancelled from here on tells its client so."""

    def __init__(self) -> None:
        self._tasks: set[CallTask] = set()
        self.ending = False

    def enter(self) -> CallTask:
        """The current task answers a call from here on, until `leave`."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        return task

    def leave(self, task: CallTask) -> None:
        """The call is over."""
        self._tasks.discard(task)

    def end(self) -> None:
        """The gateway goes: every call ends."""
        self.ending = True
        for task in list(self._tasks):
            task.cancel()

    def forget(self) -> None:
        """Nobody is told anything, as after kill -9."""
        self._tasks.clear()

    def why(self) -> MeshError:
        """Of a call whose task was cancelled."""
        if self.ending:
            message = "the gateway went away before the answer was complete: ask again"
            return ServiceError(Reason.DRAINING, message, retry_after_s=0.0)
        return ClientGone(Reason.CLIENT_CANCELLED, "the client went away")


def cancels(task: CallTask) -> Callable[[], None]:
    """For a call's `on_gone`."""
    return cast("Callable[[], None]", task.cancel)
