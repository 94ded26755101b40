"""Keeps out, on both ports, who is cut again and again: penalty.py says who, linux_door.py how.

Rules: a shell. HTTP tells of each offence as it happens. gRPC's library accepts and cuts by itself and tells nobody, so
once a second its port's connections are looked at: one that sent something and is gone, and never had a request with
a key (nor asked for health), was an offence. Who is shut out has its connections cut, except those that had such
a request, and opens no new ones.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import unquote

from ..clock import Clock
from . import linux_door
from .penalty import PenaltyBox

log = logging.getLogger(__name__)

SWEEP_EVERY_S = 1.0
AT_ONCE = 200
"""Connections looked at between two turns of the event loop, about 1 ms."""

Key = tuple[str, int]
"""Address and port of a peer."""


def key_of(peer: str) -> Key | None:
    """Of grpc's `ipv4:1.2.3.4:5` or `ipv6:%5B::1%5D:5`. None for what is neither."""
    family, _, rest = peer.partition(":")
    address, _, port = unquote(rest).rpartition(":")
    if family not in ("ipv4", "ipv6") or not port.isdigit():
        return None
    return linux_door.plain(address.strip("[]")), int(port)


class Doorman:
    """See the module. `on_out` is called with each address that is shut out from now on. All on one event loop."""

    def __init__(self, max_offences: int, clock: Clock) -> None:
        self.enabled = max_offences > 0
        self.on_out: Callable[[str], None] | None = None
        self._box, self._clock = PenaltyBox(max_offences), clock
        self._listening: list[socket.socket] = []
        self._grpc_port = 0
        self._turned_away: frozenset[str] = frozenset()
        self._seen: dict[Key, int] = {}
        self._known: set[Key] = set()
        self._lately_known: set[Key] = set()
        self._sweeper: asyncio.Task[None] | None = None

    def start(self, http_port: int, grpc_port: int) -> None:
        """Once both ports listen. Does nothing where it is off."""
        if not self.enabled:
            return
        self._grpc_port = grpc_port
        self._listening = [sock for port in (http_port, grpc_port) for sock in linux_door.listening_on(port)]
        self._sweeper = asyncio.create_task(self._sweep_on())

    def stop(self) -> None:
        """Let everybody in, look no more."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for sock in self._listening:
            sock.close()
        self._listening = []

    # what the servers tell -----------------------------------------------------------------------------

    def offended(self, address: str) -> None:
        """A connection of this address had to be cut."""
        if self._box.offended(linux_door.plain(address), self._clock.now_s()):
            log.warning("%s was cut again and again: it is not let in for a while", address)
            self._turn_away()
            if self.on_out is not None:
                self.on_out(address)

    def served(self, address: str) -> None:
        """A request of this address had a key."""
        self._box.served(linux_door.plain(address), self._clock.now_s())

    def is_out(self, address: str) -> bool:
        """Is a connection of this address to be refused?"""
        return self.enabled and self._box.is_out(linux_door.plain(address), self._clock.now_s())

    def grpc_peer(self, peer: str, *, had_a_key: bool) -> None:
        """A call of this peer had a key, or needs none and does no harm (health)."""
        if self.enabled and (key := key_of(peer)) is not None:
            self._lately_known.add(key)
            if had_a_key:
                self.served(key[0])

    # once a second -------------------------------------------------------------------------------------

    async def _sweep_on(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_EVERY_S)
            await self.sweep()

    async def sweep(self) -> None:
        """Look at gRPC's connections, and let in again whose time is over."""
        present: dict[Key, int] = {}
        for number, descriptor in enumerate(linux_door.descriptors()):
            if number % AT_ONCE == AT_ONCE - 1:
                await asyncio.sleep(0)
            peer = linux_door.peer_of(descriptor, self._grpc_port)
            if peer is None:
                continue
            key = (peer.address, peer.port)
            present[key] = peer.received_bytes
            if self.is_out(peer.address) and key not in self._known and key not in self._lately_known:
                linux_door.cut(descriptor, peer)
        for key, received_bytes in self._seen.items():
            if key not in present and received_bytes and key not in self._known:
                self.offended(key[0])
        # A call may come between two looks: what is known lately is kept until the next.
        self._known = {key for key in self._known if key in present} | self._lately_known
        self._lately_known = set()
        self._seen = present
        self._turn_away()

    def _turn_away(self) -> None:
        out = self._box.all_out(self._clock.now_s())
        if out == self._turned_away:
            return
        self._turned_away = out
        for sock in self._listening:
            with suppress(OSError):  # without filters they are refused once they are connected
                linux_door.turn_away(sock, out)
