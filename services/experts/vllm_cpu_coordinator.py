"""vLLM's data parallel coordinator as a thread of rank 0 instead of a process that imports vLLM again.

Rules: rank 0's process only, installed by vllm_cpu_plugin.py at the versions that it was tried on.

The coordinator says when a group begins and ends to take steps: a few messages per burst of work, on its own ZMQ
sockets. As shipped it is a process, and rank 0 starts its engine core only after that has imported vLLM: 12 s of a
core, for which everything else waits, and 380 MB.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from typing import Any

import zmq
from vllm.v1.engine import coordinator as shipped

NO_PROCESS = 2**22 + 1
"""Above Linux's largest process id: whoever kills or lists the coordinator by its id meets nobody."""


class CoordinatorThread:
    """What vLLM wants of the coordinator's process: its name, whether it lives, and its end."""

    name = "VLLM_DP_Coordinator"
    pid = NO_PROCESS

    def __init__(self, target: Any, name: str, kwargs: dict[str, Any], daemon: bool) -> None:
        del target, name, daemon
        self._arguments = kwargs
        self._context = zmq.Context()
        self._context.linger = 0
        self.sentinel, self._open_while_alive = os.pipe()
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self.exitcode: int | None = None

    def start(self) -> None:
        self._thread.start()

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def terminate(self) -> None:
        """Break its wait; returns when its sockets are closed."""
        self._context.term()

    kill = terminate

    def join(self, timeout: float | None = None) -> None:
        self._thread.join(timeout)

    def _run(self) -> None:
        asked = self._arguments
        core = object.__new__(shipped.DPCoordinatorProc)  # its __init__ would rename our process
        core.ctx = self._context
        core.engines = [shipped.EngineState() for _ in range(asked["engine_count"])]
        core.stats_update_interval_ms = 100
        core.enable_wave_coordination = asked["enable_wave_coordination"]
        try:
            core.process_input_socket(
                asked["front_publish_address"],
                asked["back_output_address"],
                asked["back_publish_address"],
                asked["zmq_addr_pipe"],
            )
        except zmq.ZMQError:
            pass  # terminated
        finally:
            self.exitcode = 0
            os.close(self._open_while_alive)


class _Context:
    """In place of a multiprocessing context."""

    Process = CoordinatorThread

    @staticmethod
    def Pipe(*, duplex: bool) -> Any:  # multiprocessing's name
        """The coordinator's end is closed by two: by whoever started it (a process has a copy), and by itself."""
        reader, writer = multiprocessing.Pipe(duplex=duplex)
        return reader, _Shared(writer)


class _Shared:
    """A connection that its first `close` leaves open."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._holders = 2

    def send(self, item: object) -> None:
        self._connection.send(item)

    def close(self) -> None:
        self._holders -= 1
        if self._holders == 0:
            self._connection.close()


def install() -> None:
    """The next coordinator is a thread."""
    module: Any = shipped
    module.get_mp_context = lambda: _Context
