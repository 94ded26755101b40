"""The twin's time: events in order, processes that die, stop and come back. Pure and deterministic.

Rules: no clock but `now_s`, no randomness but `rng`, no thread. An event belongs to a process: it vanishes when the
process has died since, and waits while the process is stopped (SIGSTOP), as timers and sockets do.
"""

from __future__ import annotations

import asyncio
import heapq
from abc import ABC, abstractmethod
from collections.abc import Callable
from random import Random
from typing import Any

from .loop import ProcessLoop

set_running_loop: Callable[[asyncio.AbstractEventLoop | None], None] = asyncio.events._set_running_loop  # type: ignore[reportPrivateUsage]
"""There is no public way to run a handler "inside" a loop that does no I/O."""

Call = Callable[..., None]


class Process(ABC):
    """Something that can be killed, stopped and started again. Subclasses hold the state of one incarnation and
    make it anew in `boot`."""

    def __init__(self, sim: Simulation, name: str) -> None:
        self.sim, self.name = sim, name
        self.alive = False
        self.stopped = False
        self.incarnation = 0
        self.backlog: list[tuple[Call, tuple[Any, ...]]] = []
        self.loop = ProcessLoop(self)

    @property
    def link_name(self) -> str:
        """How this process names itself on links."""
        return self.name

    def now_s(self) -> float:
        """Clock port."""
        return self.sim.now_s

    def wall_s(self) -> float:
        """Clock port."""
        return self.sim.now_s + 1_700_000_000.0

    @abstractmethod
    def boot(self) -> None:
        """Called when the process starts: fresh state, first timers, first dials."""

    def start(self) -> None:
        """Start, or start again, with nothing remembered."""
        self.incarnation += 1
        self.alive, self.stopped = True, False
        self.sim.note(self.name, "starts")
        self.sim.enter(self)
        self.boot()

    def kill(self) -> None:
        """Gone at once; its pending events vanish."""
        self.alive = self.stopped = False
        self.incarnation += 1
        self.backlog.clear()
        self.sim.note(self.name, "is killed")

    def stop(self) -> None:
        """Stopped: nothing happens in it, what arrives waits."""
        self.stopped = True
        self.sim.note(self.name, "is stopped")

    def resume(self) -> None:
        """Goes on with everything that came meanwhile."""
        if not self.stopped:
            return
        self.stopped = False
        self.sim.note(self.name, "goes on")
        backlog, self.backlog = self.backlog, []
        incarnation = self.incarnation
        for call, args in backlog:
            if self.alive and self.incarnation == incarnation:
                self.sim.enter(self)
                call(*args)

    def after(self, delay_s: float, call: Call, *args: Any) -> None:
        """Call in this process, `delay_s` from now."""
        self.sim.at(self.sim.now_s + delay_s, self, call, *args)


class Simulation:
    """The event queue. The oracle checks from within the events themselves (oracle.py)."""

    def __init__(self, seed: int, *, keep_log: bool = False) -> None:
        self.now_s = 0.0
        self.rng = Random(seed)
        self.num_events = 0
        self.log: list[str] = []
        self.keep_log = keep_log
        self._heap: list[tuple[float, int, Process | None, int, Call, tuple[Any, ...]]] = []
        self._seq = 0
        self._inside: Process | None = None

    def at(self, when_s: float, process: Process | None, call: Call, *args: Any) -> None:
        """Call at `when_s`, unless `process` has died by then."""
        self._seq += 1
        incarnation = process.incarnation if process is not None else 0
        heapq.heappush(self._heap, (when_s, self._seq, process, incarnation, call, args))

    def run(self, until_s: float) -> None:
        """Events up to `until_s`."""
        try:
            self._run(until_s)
        finally:
            self.enter(None)  # also when an invariant broke: the thread has no running loop after us
        self.now_s = max(self.now_s, until_s)

    def _run(self, until_s: float) -> None:
        heap = self._heap
        while heap and heap[0][0] <= until_s:
            when_s, _, process, incarnation, call, args = heapq.heappop(heap)
            self.now_s = when_s
            if process is not None:
                if process.incarnation != incarnation or not process.alive:
                    continue
                if process.stopped:
                    process.backlog.append((call, args))
                    continue
                if process is not self._inside:
                    self.enter(process)
            self.num_events += 1
            call(*args)

    def enter(self, process: Process | None) -> None:
        """What happens now happens inside `process`: its loop is the running one."""
        if process is not self._inside:
            self._inside = process
            set_running_loop(None if process is None else process.loop)

    def note(self, who: str, what: object) -> None:
        """A line of the event log; kept only when replaying a failure, since texts cost more than events."""
        if self.keep_log:
            self.log.append(f"{self.now_s:9.4f}  {who:<9} {what}")
