"""`python -m services.queue.uvloop_process NAME PID [standby]`: the queue in a process of its own, which outlives its
keeper.

Rules: a shell around QueueAuthority, without Ray: it takes half a second to start where a replica of Serve takes
several, and its event loop has nothing to do but decide. keeper.py, in the replica, starts it and asks it, over an
abstract unix socket that only processes of the same user may use. A replica that is killed leaves it running; the next
one finds it by NAME, and no gateway notices. It ends when it is told to, when PID (Ray on this node) ends, or when no
keeper has come back for ORPHAN_S. A standby (standby.py) goes on where it dies.
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
from . import standby
from .authority import QueueAuthority
from .keeper import Answer, Question
from .rollout.operations import Wish
from .standby import START_AFTER_S, SUCCEED_AFTER_S, Inheritance, Standby

log = logging.getLogger(__name__)

ORPHAN_S = 60.0
TITLE = "queue-active"


class QueueProcess:
    """Serves one authority to its keepers. `heir_of`: what another left behind."""

    def __init__(self, config: QueueConfig, heir_of: Inheritance | None = None) -> None:
        self.authority = QueueAuthority(config, key=heir_of.key if heir_of is not None else None)
        self._config, self._heir_of = config, heir_of
        self._standby: Standby | None = None
        self.ended = asyncio.Event()
        self._keepers = 0
        self._orphaned: asyncio.TimerHandle | None = None
        self._leave(0)

    async def serve(self, name: str, owner_pid: int) -> None:
        """Listen, and have somebody who would go on. Raises OSError when there is such a process already."""
        if self._heir_of is not None:
            await self.authority.start(sock=socket.socket(fileno=self._heir_of.links_fd))
            sock = socket.socket(fileno=self._heir_of.keepers_fd)
            sock.setblocking(False)
        else:
            await self.authority.start()
            sock = abstract_socket()
            sock.bind(f"\0{name}")
        # Held: uvloop ends a server that nobody holds.
        self._server = await asyncio.start_unix_server(self._keeper, sock=sock)
        told = Inheritance(
            os.getpid(), self.authority.server.fileno(), sock.fileno(), self.authority.key,
            self._config.model_dump_json().encode(),
        )  # fmt: skip
        self._standby = Standby(name, owner_pid, told)
        self._standby.start_later(SUCCEED_AFTER_S if self._heir_of is not None else START_AFTER_S)

    def close(self) -> None:
        """The end, in order."""
        if self._standby is not None:
            self._standby.stop()
        self.authority.close()

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
                case "standby":
                    return Answer(self._standby.pid if self._standby is not None else 0)
                case "stop":
                    asyncio.get_running_loop().call_soon(self.ended.set)
                    return Answer(None)
        except ConfigError as error:
            return Answer(None, str(error))


async def run(name: str, pid: int, config: QueueConfig, heir_of: Inheritance | None = None) -> None:
    """Until it is to end."""
    process = QueueProcess(config, heir_of)
    await process.serve(name, pid)
    asyncio.get_running_loop().add_reader(os.pidfd_open(pid), process.ended.set)
    print("ready", flush=True)
    await process.ended.wait()
    process.close()


def main() -> None:
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    name, pid = sys.argv[1], int(sys.argv[2])
    if sys.argv[3:] != ["standby"]:
        standby.title(TITLE)
        uvloop.run(run(name, pid, QueueConfig.model_validate_json(sys.stdin.read())))
        return
    heritage = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Inheritance)
    config = QueueConfig.model_validate_json(heritage.config)
    standby.title(standby.TITLE)
    if standby.wait(heritage.active_pid, pid):
        standby.title(TITLE)
        log.warning("the queue's process died: its standby goes on")
        uvloop.run(run(name, pid, config, heritage))


if __name__ == "__main__":
    main()
