"""Ray's GCS killed and started again on its own port, as whoever supervises a head does it.

Rules: Ray keeps the GCS's state outside of it only where RAY_REDIS_ADDRESS names a store when the head starts; without
one a killed GCS is the end of the cluster. Nothing in Ray starts it again.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

from ..bench.cache_rig import Valkey

AWAY_S = 1.0
PROCESS = "gcs/gcs_server"


class Gcs:
    """The store of one mesh's GCS, and those that were started in the first one's place."""

    def __init__(self) -> None:
        self._store = Valkey()
        self.environment = {"RAY_REDIS_ADDRESS": f"127.0.0.1:{self._store.port}"}
        self._restarted: list[subprocess.Popen[bytes]] = []

    def kill(self, pid: int, port: str) -> float:
        """kill -9, and the same command again `AWAY_S` later; returns the moment of the kill. Blocks for so long."""
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().rstrip("\0").split("\0")
        option = "--gcs_server_port="
        words = [f"{option}{port}" if word.startswith(option) else word for word in words]
        environ = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
        os.kill(pid, signal.SIGKILL)
        at_s = time.monotonic()
        time.sleep(AWAY_S)
        environment = dict(one.split("=", 1) for one in environ if "=" in one)
        quiet = subprocess.DEVNULL
        self._restarted.append(subprocess.Popen(words, env=environment, stdout=quiet, stderr=quiet))
        return at_s

    def end(self) -> None:
        """Everything that was started here."""
        for process in self._restarted:
            process.kill()
            process.wait()
        self._store.server.stop()
