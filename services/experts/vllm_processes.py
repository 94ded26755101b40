"""The processes that vLLM starts for one rank: which they are, and how all of them end.

Rules: knows AsyncLLM's insides as far as they name processes (0.26 and 0.32 alike); linux_processes.py does the rest.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from . import linux_processes

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM

    from .linux_processes import Process

SHUTDOWN_S = 0.5
"""vLLM's own shutdown waits for a busy engine core; ours has nothing worth waiting for."""


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
