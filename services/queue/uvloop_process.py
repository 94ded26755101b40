"""`python -m services.queue.uvloop_process NAME PID`: the queue in a process of its own, which outlives its keeper.

Rules: a shell around QueueAuthority, without Ray: it takes half a second to start where a replica of Serve takes
several, and its event loop has nothing to do but decide. keeper.py, in the replica, starts it and asks it, over an
abstract unix socket that only processes of the same user may use. A replica that is killed leaves it running; the next
one finds it by NAME, and no gateway notices. It ends when it is told to, when PID (Ray on this node) ends, or when no
keeper has come back for ORPHAN_S.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys

import msgspec
import uvloop

from ..config import QueueConfig
from ..errors import ConfigError
from ..link.unix_frames import abstract_socket, read_frame, same_user, write_frame
from .authority import QueueAuthority
from .keeper import Answer, Question
from .rollout.operations import Wish

log = logging.getLogger(__name__)

ORPHAN_S = 60.0


class QueueProcess:
    """Serves one authority to its keepers."""

    def __init__(self, config: QueueConfig) -> None:
        self.authority = QueueAuthority(config)
        self.ended = asyncio.Event()
        self._keepers = 0
        self._orphaned: asyncio.TimerHandle | None = None
        self._leave(0)

    async def serve(self, name: str) -> None:
        """Listen. Raises OSError when there is such a process already."""
        await self.authority.start()
        sock = abstract_socket()
        sock.bind(f"\0{name}")
        await asyncio.start_unix_server(self._keeper, sock=sock)

    async def _keeper(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sock: socket.socket = writer.get_extra_info("socket")
        if not same_user(sock):
            writer.close()
            return
        self._leave(+1)
        try:
            while True:
                question = msgspec.msgpack.decode(await read_frame(reader), type=Question)
                write_frame(writer, msgspec.msgpack.encode(self._answer(question)))
                await writer.drain()
        except (OSError, EOFError, msgspec.MsgspecError, asyncio.CancelledError) as error:
            log.info("a keeper went: %s", error)
        finally:
            self._leave(-1)
            writer.close()

    def _leave(self, change: int) -> None:
        self._keepers += change
        if self._orphaned is not None:
            self._orphaned.cancel()
        loop = asyncio.get_running_loop()
        self._orphaned = None if self._keepers else loop.call_later(ORPHAN_S, self.ended.set)

    def _answer(self, question: Question) -> Answer:
        authority = self.authority
        try:
            match question.verb:
                case "endpoint":
                    return Answer([authority.address, authority.key])
                case "snapshot":
                    return Answer(msgspec.to_builtins(authority.snapshot()))
                case "operate":
                    return Answer(authority.operate(msgspec.msgpack.decode(question.wish, type=Wish)))
                case "silent":
                    return Answer(authority.silent_s())
                case "stop":
                    asyncio.get_running_loop().call_soon(self.ended.set)
                    return Answer(None)
        except ConfigError as error:
            return Answer(None, str(error))


async def run(name: str, pid: int, config: QueueConfig) -> None:
    """Until it is to end."""
    process = QueueProcess(config)
    await process.serve(name)
    asyncio.get_running_loop().add_reader(os.pidfd_open(pid), process.ended.set)
    print("ready", flush=True)
    await process.ended.wait()
    process.authority.close()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    uvloop.run(run(sys.argv[1], int(sys.argv[2]), QueueConfig.model_validate_json(sys.stdin.read())))
