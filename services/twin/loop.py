"""An asyncio event loop on virtual time, one per process of the twin: real shells run in it unchanged.

Rules: timers, futures and tasks only. There is no I/O (the twin's network replaces sockets) and nothing ever blocks;
work for a thread is done in place; what needs a socket raises NotImplementedError, which is the point: it would not
be deterministic.
"""

# pyright: reportIncompatibleMethodOverride=false, reportIncompatibleVariableOverride=false
# AbstractEventLoop promises TimerHandle and a generic create_task; a Timer of ours quacks like one and costs a third.

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .kernel import Process


THREAD_S = 0.001
"""What work in a thread takes."""


def _settle(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)


class Timer:
    """What call_soon and call_later return."""

    __slots__ = ("_args", "_callback", "_when_s")

    def __init__(self, when_s: float, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        self._when_s = when_s
        self._callback: Callable[..., object] | None = callback
        self._args = args

    def fire(self) -> None:
        if self._callback is not None:
            self._callback(*self._args)

    def cancel(self) -> None:
        self._callback, self._args = None, ()

    def cancelled(self) -> bool:
        return self._callback is None

    def when(self) -> float:
        return self._when_s


class ProcessLoop(asyncio.AbstractEventLoop):
    """The running loop while an event of `process` is handled. It dies with the process: nothing pending happens."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def time(self) -> float:
        return self._process.sim.now_s

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_soon(self, callback: Callable[..., object], *args: Any, context: object = None) -> Timer:
        return self._at(self._process.sim.now_s, callback, args)

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: object = None
    ) -> Timer:
        return self._at(self._process.sim.now_s + max(0.0, delay), callback, args)

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: object = None
    ) -> Timer:
        return self._at(max(when, self._process.sim.now_s), callback, args)

    def _at(self, when_s: float, callback: Callable[..., object], args: tuple[Any, ...]) -> Timer:
        timer = Timer(when_s, callback, args)
        self._process.sim.at(when_s, self._process, timer.fire)
        return timer

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self, coro: Coroutine[Any, Any, Any], *, name: str | None = None, context: object = None
    ) -> asyncio.Task[Any]:
        return asyncio.Task(coro, loop=self)

    def run_in_executor(self, executor: object, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        """No thread: pure work is done at once, and its result comes a moment later, as from a thread."""
        future = self.create_future()
        try:
            self.call_later(THREAD_S, _settle, future, func(*args), None)
        except Exception as error:
            self.call_later(THREAD_S, _settle, future, None, error)
        return future

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Tasks of killed processes are dropped without a word; errors in tasks are looked for by the twin."""
