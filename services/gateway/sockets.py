"""Where the gateway listens: one socket, or several that share a port."""

from __future__ import annotations

import socket

from ..errors import ConfigError

SEND_BUFFER_BYTES = 256 * 1024
"""The kernel's part of what a client may leave unread; it takes twice that, its own books included. Left to itself it
takes up to 4 MB for each client, and answers that nobody reads are made to fill it."""


def bind(host: str, port: int, *, reuse_port: bool = False) -> socket.socket:
    """A listening TCP socket. Raises ConfigError that names the port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Accepted ones inherit both. uvloop sets this on each; asyncio's own loop only where a socket names its protocol.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    if reuse_port:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        sock.bind((host, port))
        sock.listen(4096)
    except OSError as error:
        sock.close()
        raise ConfigError(
            f"cannot listen on {host}:{port} ({error.strerror}); free the port or choose another (EXPERTMESH_HTTP_PORT)"
        ) from error
    sock.setblocking(False)
    return sock
