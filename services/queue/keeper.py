"""Keeps the queue's process (uvloop_process.py) alive, and speaks for it inside the replica.

Rules: standard library and msgspec, no Ray. One connection for as long as the keeper lives: its end tells the process
that it is alone. Whoever asks finds a process: the one that is there, or a new one when it died or does not answer.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import msgspec

from ..child_environment import child_environment
from ..config import QueueConfig
from ..errors import ConfigError, ServiceError
from ..link.unix_frames import connect_or_start, peer, read_frame, write_frame
from ..outcome import Reason

log = logging.getLogger(__name__)

ANSWER_WITHIN_S = 5.0
RETRY_AFTER_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
"""A process that is being killed still takes connections for some milliseconds."""


class Question(msgspec.Struct, frozen=True):
    """What a keeper asks; `wish` is msgpack of a rollout.operations.Wish."""

    verb: Literal["endpoint", "snapshot", "operate", "silent", "standby", "stop"]
    wish: bytes = b""


class Answer(msgspec.Struct, frozen=True):
    """`refused` is a ConfigError's text."""

    value: Any = None
    refused: str = ""


class Keeper:
    """`name` is the same for every replica of one deployment, `pid` the process with which the queue must end."""

    def __init__(self, config: QueueConfig, name: str, pid: int) -> None:
        self._config, self._name, self._pid = config, name, pid
        self._lock = asyncio.Lock()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._started: subprocess.Popen[bytes] | None = None

    async def endpoint(self) -> tuple[str, bytes]:
        """Address and key of the queue's link."""
        address, key = await self.ask(Question("endpoint"))
        return address, key

    async def ask(self, question: Question) -> Any:
        """The answer, from the next process if this one is gone. Raises ConfigError (a wish refused), ServiceError."""
        async with self._lock:
            for pause_s in RETRY_AFTER_S:
                try:
                    answer = await self._ask(question)
                except (OSError, EOFError, TimeoutError) as error:
                    log.warning("the queue's process does not answer: %r", error)
                    self._drop(isinstance(error, TimeoutError))
                    await asyncio.sleep(pause_s)
                else:
                    if answer.refused:
                        raise ConfigError(answer.refused)
                    return answer.value
            raise ServiceError(Reason.INTERNAL, "the queue's process does not answer")

    async def _ask(self, question: Question) -> Answer:
        if self._streams is None:
            self._streams = await connect_or_start(self._name, self._start)
        reader, writer = self._streams
        async with asyncio.timeout(ANSWER_WITHIN_S):
            write_frame(writer, msgspec.msgpack.encode(question))
            return msgspec.msgpack.decode(await read_frame(reader), type=Answer)

    def _start(self) -> None:
        """Blocks until it listens. A process that loses the race for the name ends by itself, and is not needed."""
        self._started = process = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.uvloop_process", self._name, str(self._pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=child_environment(),
            start_new_session=True,
        )
        assert process.stdin is not None and process.stdout is not None
        with process.stdin as stdin, suppress(BrokenPipeError):
            stdin.write(self._config.model_dump_json().encode())
        process.stdout.readline()

    def _drop(self, hangs: bool) -> None:
        """Forget the connection; end a process that hangs."""
        if self._streams is None:
            return
        writer = self._streams[1]
        if hangs:
            with suppress(OSError):
                self._kill(peer(writer.get_extra_info("socket"))[0])
        writer.close()
        self._streams = None
        if self._started is not None:
            self._started.poll()  # reaps it

    def _kill(self, pid: int) -> None:
        """Only what is this queue: the number may be of one that died, and somebody else's by now."""
        if self._name.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
            os.kill(pid, signal.SIGKILL)

    async def stop(self) -> None:
        """End the process, in order: the deployment goes."""
        with suppress(ServiceError, ConfigError):
            await self.ask(Question("stop"))
        await asyncio.to_thread(self._reap)

    def _reap(self) -> None:
        if self._started is not None:
            with suppress(subprocess.TimeoutExpired):
                self._started.wait(ANSWER_WITHIN_S)
