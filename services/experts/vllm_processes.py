"""The processes that vLLM starts for one rank: which they are, and how all of them end.

Rules: knows AsyncLLM's insides as far as they name processes (0.26 and 0.32 alike); linux_processes.py does the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from . import linux_processes

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM

    from .linux_processes import Process

HALTED_SAMPLES = 5
"""A process of an engine that was seen stopped so many times in a row is as good as dead: half a second."""

SHUTDOWN_S = 0.5
"""vLLM's own shutdown waits for a busy engine core; ours has nothing worth waiting for."""


class Watch:
    """Do those run without whom there are no tokens? Asked with every load sample, ten times a second: the kernel says
    so at once, vLLM after a while, and of a stopped one never."""

    def __init__(self, cores: Sequence[Process] = ()) -> None:
        self.cores = tuple(cores)
        self._halted = 0

    def why_lost(self) -> str:
        """Why the engine is as good as dead; empty while it is not."""
        ending = [core.pid for core in self.cores if core.ending]
        if ending:
            return f"process {ending[0]} of the engine ends"
        halted = [core.pid for core in self.cores if core.halted]
        self._halted = self._halted + 1 if halted else 0
        return f"process {halted[0]} of the engine was stopped" if self._halted >= HALTED_SAMPLES else ""


def cores(llm: AsyncLLM) -> list[Process]:
    """The processes without which there are no tokens: this rank's engine core and, where it has several GPUs or
    vLLM puts them apart, its workers."""
    manager = llm.engine_core.resources.engine_manager  # type: ignore[attr-defined]  # AsyncMPClient
    roots = [p.pid for p in getattr(manager, "processes", ())]
    below = linux_processes.with_descendants(roots)
    return [one for one in below if one.pid in roots or linux_processes.title(one).startswith("VLLM::Worker")]


def _children(llm: AsyncLLM) -> list[Process]:
    """vLLM's processes below this engine: engine core, workers, and on rank 0 the coordinator."""
    resources = llm.engine_core.resources  # type: ignore[attr-defined]  # AsyncMPClient; vLLM types its base only
    roots = [p.pid for p in getattr(resources.engine_manager, "processes", ())]
    coordinator = getattr(resources.coordinator, "proc", None)
    if coordinator is not None:
        roots.append(coordinator.pid)
    return linux_processes.with_descendants(roots)


def shut_down(llm: AsyncLLM) -> None:
    """Ask vLLM to end, then end what is left, shared memory included: a rank that hangs in a collective with a
    dead peer hears nothing."""
    children = _children(llm)
    segments = linux_processes.shared_memory(children)
    with suppress(Exception):
        llm.shutdown(timeout=SHUTDOWN_S)
    linux_processes.end(children, segments)
