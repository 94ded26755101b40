"""Ports of this host: is one free, and one that is likely to stay free until who asked for it listens."""

from __future__ import annotations

import random
import socket
from pathlib import Path

from .errors import ConfigError

LOWEST = 20_000
"""Below lie Ray's workers (10002–19999 unless told otherwise) and what people choose by hand."""
TRIES = 200
_chance = random.SystemRandom()


def require_free(host: str, port: int, setting: str) -> None:
    """Asked before anything is started, so that the answer is one sentence and not a stack trace.

    Raises ConfigError naming the port and the setting that moves it. Port 0 is always free."""
    if port == 0:
        return
    try:
        _try(host, port)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}:{port} ({error.strerror}); choose another port with {setting}"
        ) from None


def number(text: str, setting: str) -> int:
    """A port as somebody wrote it. Raises ConfigError naming the setting."""
    if not text.isascii() or not text.isdecimal() or int(text) > 65535:
        raise ConfigError(f"{setting} must be a port number, not {text!r}")
    return int(text)


def free_port(host: str = "127.0.0.1") -> int:
    """A port for somebody who listens only seconds later. The kernel's own choice (port 0) is one that it gives to
    the next outgoing connection of anybody, so this looks below the range that those come from (Linux,
    `ip_local_port_range`), at random, since others look too."""
    below = _first_outgoing()
    if below <= LOWEST:
        return _try(host, 0)
    for _ in range(TRIES):
        try:
            return _try(host, _chance.randrange(LOWEST, below))
        except OSError:
            continue
    return _try(host, 0)


def _first_outgoing() -> int:
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 32_768


def _try(host: str, port: int) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As the servers do: TIME_WAIT is not taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        return probe.getsockname()[1]
