"""Is a port free? Asked before anything is started, so that the answer is one sentence and not a stack trace."""

from __future__ import annotations

import socket

from ..errors import ConfigError


def require_free(host: str, port: int, setting: str) -> None:
    """Raises ConfigError naming the port and the setting that moves it. Port 0 is always free."""
    if port == 0:
        return
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # as the server does: TIME_WAIT is not taken
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {host}:{port} ({error.strerror}); choose another port with {setting}"
            ) from None
