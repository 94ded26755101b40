"""`python -m services.experts.vllm_fork_server NAME OWNER`: imports vLLM once, and forks a rank for each who connects.

Rules: one thread and no event loop in this process, so that a fork is whole; the rank's own business begins in the
child (hosted_rank.py). It binds NAME, an abstract unix socket, before it imports: whoever connects meanwhile waits.
It ends with the process OWNER, or at once where another has the name; ranks end with their own connections.

Two ranks on two cores import vLLM one after the other in effect, 15 s of a core each; here it is once, it can begin
before Ray does, and a rank that died is back without it.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import logging
import os
import select
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from ..link.unix_frames import same_user
from .hosted_rank import HostedRank

log = logging.getLogger(__name__)

COMM = "expert-rank"
"""What `ps` and `top` call a rank."""
PRELOAD = (
    "services.experts.vllm_engine",
    "vllm.model_executor.model_loader",
    "vllm.model_executor.layers.quantization.online.base",
    "vllm.model_executor.models.mixtral",
    "vllm.utils.cpu_triton_utils",
    "vllm.v1.worker.cpu_worker",
)
"""What every rank imports, and the embedded model's class."""


def main(name: str, owner: int, preload: Sequence[str] = PRELOAD) -> int:
    """Serve until OWNER ends. Returns the exit code."""
    alive = os.pidfd_open(owner)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(f"\0{name}")
    except OSError:
        return 0  # another serves already
    listener.listen()
    print("listening", flush=True)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)  # unlike a descriptor that was opened, one that programs of a rank's inherit
    os.close(nowhere)
    for module in preload:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # what is shared stays shared: a collection in a child would write to every page of it
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the ranks here
    while True:
        ready, _, _ = select.select([listener, alive], [], [])
        if alive in ready:
            return 0
        connection, _ = listener.accept()
        with connection:
            if same_user(connection) and os.fork() == 0:
                listener.close()
                os.close(alive)
                os._exit(_rank(connection))


def _rank(connection: socket.socket) -> int:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    Path("/proc/self/comm").write_text(COMM)
    code = 1
    try:
        # Not asyncio.run: it would wait for a thread that builds an engine which nobody wants any more.
        code = asyncio.new_event_loop().run_until_complete(_serve(connection))
    except (OSError, EOFError) as error:
        log.warning("nobody said what to run: %r", error)
    except BaseException:
        log.exception("the rank ends")
    logging.shutdown()
    return code


async def _serve(connection: socket.socket) -> int:
    connection.setblocking(False)
    reader, writer = await asyncio.open_unix_connection(sock=connection)
    return await HostedRank(reader, writer).serve()


if __name__ == "__main__":
    logging.basicConfig(
        level=logging.WARNING, stream=sys.stderr, format="%(asctime)s %(process)d %(levelname)s %(message)s"
    )
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
