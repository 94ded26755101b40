"""A rank that runs in a process of its own (hosted_rank.py), as its replica sees it: with Rank's surface.

Rules: asyncio and msgspec, no Ray, no vLLM. The process is a fork of vllm_fork_server.py, which the first rank of a
node starts, unless somebody did before (`expertmesh run`, at once when it begins).
"""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import IO

import msgspec

from ..child_environment import child_environment
from ..config import ExpertsConfig
from ..errors import ConfigError, EngineLost
from ..link.asyncio_link import Resolve
from ..link.unix_frames import connect_or_start, read_frame, write_frame
from . import groups
from .commission import Commission
from .engine import EngineInfo
from .hosted_rank import Ask, Done, FindQueue, QueueFound, Ready, Refused

log = logging.getLogger(__name__)

END_WITHIN_S = 5.0


def wanted(config: ExpertsConfig) -> bool:
    """Whether ranks of these settings are forks of a process that has imported vLLM: those on CPUs. A GPU's rank forks
    its own engine core (vllm_gpu_fork.py) and has cores enough to import at leisure."""
    return config.engine == "vllm" and config.device == "cpu" and config.enforce_eager


def start_server(name: str, owner: int, output: IO[bytes] | None = None) -> subprocess.Popen[bytes]:
    """Start the fork server of this node under `name`; it ends with the process `owner`, or at once where the name is
    taken. Does not wait: it says "listening" when it does, on its standard output, which is a pipe unless all that it
    and its ranks say goes to `output`."""
    return subprocess.Popen(
        [sys.executable, "-m", f"{__package__}.vllm_fork_server", name, str(owner)],
        stdin=subprocess.DEVNULL,
        stdout=output or subprocess.PIPE,
        stderr=output,
        env=child_environment(**groups.fork_server_environment()),
        start_new_session=True,
    )


class RemoteRank:
    """`server` names the node's fork server, `owner` is the process with which one that we start ends. `on_lost` is
    called once when the rank's process ends unasked."""

    def __init__(
        self,
        commission: Commission,
        server: str,
        owner: int,
        *,
        resolve_queue: Resolve,
        on_lost: Callable[[str], None],
    ) -> None:
        self._commission = commission
        self._server, self._owner = server, owner
        self._resolve_queue, self._on_lost = resolve_queue, on_lost
        self._asked: dict[int, asyncio.Future[str]] = {}
        self._number = 0
        self._finding: set[asyncio.Task[None]] = set()
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._stopping = False
        self.info: EngineInfo | None = None
        self._endpoint = ("", b"")

    async def start(self) -> EngineInfo:
        """Return when a token was generated. Raises ConfigError with the engine's words, or when its process ended."""
        reader, self._writer = await connect_or_start(self._server, self._start_server)
        self._say(self._commission)
        ready: asyncio.Future[EngineInfo] = asyncio.get_running_loop().create_future()
        self._reading = asyncio.create_task(self._read(reader, ready))
        return await ready

    async def endpoint(self) -> tuple[str, bytes]:
        """Address and key of the rank's link."""
        return self._endpoint

    async def check_health(self) -> None:
        """Raise EngineLost when tokens do not move. Returns at once while the rank starts."""
        if self.info is not None and (lost := await self._ask("health")):
            raise EngineLost(lost)

    async def drain(self, deadline_s: float) -> None:
        """As Rank.drain."""
        if self.info is not None:
            await self._ask("drain", deadline_s)

    async def stop(self) -> None:
        """End the rank's process. Idempotent."""
        self._stopping = True
        if self._writer is None:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(END_WITHIN_S):
                if self.info is not None:
                    await self._ask("stop")
        self._writer.close()
        if self._reading is not None:
            self._reading.cancel()

    # inside --------------------------------------------------------------------------------------------

    def _start_server(self) -> None:
        """Blocks until somebody listens: this one, or who had the name before."""
        process = start_server(self._server, self._owner)
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()

    async def _read(self, reader: asyncio.StreamReader, ready: asyncio.Future[EngineInfo]) -> None:
        why = "the rank's process ended"
        try:
            while True:
                word = msgspec.msgpack.decode(
                    await read_frame(reader), type=Ready | Refused | FindQueue | Done
                )
                if isinstance(word, Done):
                    if (future := self._asked.pop(word.number, None)) is not None and not future.done():
                        future.set_result(word.lost)
                elif isinstance(word, FindQueue):
                    task = asyncio.create_task(self._find_queue(word.number))
                    self._finding.add(task)
                    task.add_done_callback(self._finding.discard)
                elif isinstance(word, Ready):
                    self.info, self._endpoint = word.info, (word.address, word.key)
                    ready.set_result(word.info)
                else:
                    ready.set_exception(ConfigError(word.why))
                    return
        except (OSError, EOFError, msgspec.MsgspecError) as error:
            log.warning("%s: %r", why, error)
        finally:
            for future in self._asked.values():
                if not future.done():
                    future.set_result("" if self._stopping else why)
        if not ready.done():
            ready.set_exception(ConfigError(f"{why} before it generated a token; its log says why"))
        elif not self._stopping:
            self._on_lost(why)

    async def _find_queue(self, number: int) -> None:
        try:
            address, key = await self._resolve_queue()
        except Exception as error:  # whatever Ray raises: the rank asks again, as it would have here
            self._say(QueueFound(number, failed=repr(error)))
        else:
            self._say(QueueFound(number, address, key))

    async def _ask(self, verb: str, deadline_s: float = 0.0) -> str:
        """Why the rank is lost; empty while it is not."""
        if self._reading is None or self._reading.done():
            return "the rank's process ended"
        self._number += 1
        self._asked[self._number] = answer = asyncio.get_running_loop().create_future()
        self._say(Ask(self._number, verb, deadline_s))  # type: ignore[arg-type]  # a literal of ours
        return await answer

    def _say(self, word: Commission | Ask | QueueFound) -> None:
        assert self._writer is not None
        write_frame(self._writer, msgspec.msgpack.encode(word))
