"""One rank in a process of its own, for a keeper that holds the other end of a unix socket (remote_rank.py).

Rules: a shell around Rank, without Ray; what the two say to each other stands here. The rank ends with its connection:
a keeper that is killed takes it along, and a rank that dies is an end of file for its keeper.

    replica (RemoteRank) ── Commission, Ask, QueueFound ──► process (HostedRank) ── engine
                         ◄─ Ready or Refused, Done, FindQueue ─┘
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Literal

import msgspec

from ..errors import ConfigError, EngineLost
from ..link.unix_frames import read_frame, write_frame
from .commission import Commission
from .commission import rank as commissioned
from .engine import EngineInfo
from .rank import Rank

log = logging.getLogger(__name__)


class Ready(msgspec.Struct, frozen=True, tag=True):
    """A token was generated; gateways dial `address` with `key`."""

    address: str
    key: bytes
    info: EngineInfo


class Refused(msgspec.Struct, frozen=True, tag=True):
    """It cannot run here: a ConfigError's text."""

    why: str


class FindQueue(msgspec.Struct, frozen=True, tag=True):
    """Where is the queue? Only the keeper can ask that."""

    number: int


class QueueFound(msgspec.Struct, frozen=True, tag=True):
    """`failed` says why nobody knows; the rank asks again by itself."""

    number: int
    address: str = ""
    key: bytes = b""
    failed: str = ""


class Ask(msgspec.Struct, frozen=True, tag=True):
    number: int
    verb: Literal["health", "drain", "stop"]
    deadline_s: float = 0.0


class Done(msgspec.Struct, frozen=True, tag=True):
    """`lost`: an EngineLost's text."""

    number: int
    lost: str = ""


class HostedRank:
    """See the module."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._asked: dict[int, asyncio.Future[QueueFound]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended = asyncio.Event()

    async def serve(self) -> int:
        """Until the connection ends, or the rank. Returns the process's exit code. Raises EOFError, OSError when the
        keeper goes before it said what to run."""
        commission = msgspec.msgpack.decode(await read_frame(self._reader), type=Commission)
        self._spawn(self._listen())
        starting = asyncio.create_task(self._start(commission))
        ended = asyncio.create_task(self._ended.wait())
        await asyncio.wait([starting, ended], return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
            return 1
        try:
            self._rank = rank = starting.result()
        except ConfigError as error:
            self._say(Refused(str(error)))
            await self._writer.drain()
            return 1
        assert rank.info is not None
        self._say(Ready(rank.address, rank.key, rank.info))
        await ended
        await rank.stop()
        return 0

    async def _start(self, commission: Commission) -> Rank:
        rank = commissioned(commission, self._find_queue, self._end)
        try:
            await rank.start()
        except BaseException:
            await rank.stop()
            raise
        return rank

    def _end(self, because: str) -> None:
        log.error("the rank ends itself: %s", because)
        self._ended.set()

    async def _listen(self) -> None:
        try:
            while True:
                word = msgspec.msgpack.decode(await read_frame(self._reader), type=Ask | QueueFound)
                if isinstance(word, QueueFound):
                    if (future := self._asked.pop(word.number, None)) is not None and not future.done():
                        future.set_result(word)
                else:
                    self._spawn(self._answer(word))
        except (OSError, EOFError, msgspec.MsgspecError) as error:
            log.warning("the keeper went: %r", error)
        finally:
            self._ended.set()

    async def _answer(self, word: Ask) -> None:
        lost = ""
        if word.verb == "health":
            try:
                await self._rank.check_health()
            except EngineLost as error:
                lost = str(error)
        elif word.verb == "drain":
            await self._rank.drain(word.deadline_s)
        else:
            await self._rank.stop()
            self._ended.set()
        self._say(Done(word.number, lost))

    async def _find_queue(self) -> tuple[str, bytes]:
        number = max(self._asked, default=0) + 1
        self._asked[number] = asyncio.get_running_loop().create_future()
        self._say(FindQueue(number))
        found = await self._asked[number]
        if found.failed:
            raise OSError(found.failed)
        return found.address, found.key

    def _say(self, word: Ready | Refused | FindQueue | Done) -> None:
        write_frame(self._writer, msgspec.msgpack.encode(word))

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
