"""The life of one link, without I/O: mutual authentication, then messages, with a proof of life on a timer.

Rules: bytes and times in, messages and bytes out (as h11 does for HTTP); no socket, no event loop.

    server → client   nonce_s (32 bytes)
    client → server   nonce_c (32) · HMAC-SHA256(key, "client" · nonce_s · nonce_c) · name length (1) · name
    server → client   HMAC-SHA256(key, "server" · nonce_s · nonce_c)
    both              frames (frames.py)

The key is a secret of the serving process that a peer learned over an authenticated Ray handle, so whoever can
reach the port but not Ray learns nothing and can send nothing.
"""

from __future__ import annotations

import hmac
import secrets
from enum import Enum

from ..errors import LinkClosed
from .frames import FrameReader
from .messages import AnyMessage

NONCE_BYTES = 32
MAC_BYTES = 32
MAX_NAME_BYTES = 255


class Role(Enum):
    SERVER = "server"
    CLIENT = "client"


class Session:
    """Sans-I/O state of one link. `name` is the client's name once it is authenticated."""

    def __init__(self, role: Role, key: bytes, name: str = "", *, nonce: bytes | None = None) -> None:
        self.role = role
        self.name = name
        self.ready = False
        self._key = key
        self._nonce = nonce if nonce is not None else secrets.token_bytes(NONCE_BYTES)
        self._peer_nonce = b""
        self._pending = b""
        self.messages = FrameReader().messages
        """Of a link that is ready: what bytes of the peer mean. Raises LinkClosed on garbage."""

    def greeting(self) -> bytes:
        """What to send when the connection is made."""
        return self._nonce if self.role is Role.SERVER else b""

    def receive(self, data: bytes) -> tuple[list[AnyMessage], bytes]:
        """Messages that arrived, and bytes to send at once (handshake). Raises LinkClosed on a wrong peer."""
        if self.ready:
            return self.messages(data), b""
        self._pending += data
        return self._server_step() if self.role is Role.SERVER else self._client_step()

    def _server_step(self) -> tuple[list[AnyMessage], bytes]:
        head = NONCE_BYTES + MAC_BYTES + 1
        if len(self._pending) < head:
            return [], b""
        size = head + self._pending[head - 1]
        if len(self._pending) < size:
            return [], b""
        nonce, mac = self._pending[:NONCE_BYTES], self._pending[NONCE_BYTES : NONCE_BYTES + MAC_BYTES]
        if not hmac.compare_digest(mac, self._mac(b"client", self._nonce, nonce)):
            raise LinkClosed("link refused: wrong key")
        self.name = self._pending[head:size].decode(errors="replace")
        rest, self._pending, self.ready = self._pending[size:], b"", True
        return self.messages(rest) if rest else [], self._mac(b"server", self._nonce, nonce)

    def _client_step(self) -> tuple[list[AnyMessage], bytes]:
        if not self._peer_nonce:
            if len(self._pending) < NONCE_BYTES:
                return [], b""
            self._peer_nonce, self._pending = self._pending[:NONCE_BYTES], self._pending[NONCE_BYTES:]
            name = self.name.encode()[:MAX_NAME_BYTES]
            mac = self._mac(b"client", self._peer_nonce, self._nonce)
            return [], self._nonce + mac + bytes([len(name)]) + name
        if len(self._pending) < MAC_BYTES:
            return [], b""
        mac, rest = self._pending[:MAC_BYTES], self._pending[MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(b"server", self._peer_nonce, self._nonce)):
            raise LinkClosed("link refused: the server does not know the key")
        self._pending, self.ready = b"", True
        return self.messages(rest) if rest else [], b""

    def _mac(self, who: bytes, server_nonce: bytes, client_nonce: bytes) -> bytes:
        return hmac.digest(self._key, who + server_nonce + client_nonce, "sha256")


class Liveness:
    """Decides when a silent peer is dead. A verdict is put off while we ourselves were late.

    Without that rule a process that was starved or stopped for a second would, on waking, declare all its
    healthy peers dead before reading what they sent meanwhile.
    """

    def __init__(self, now_s: float, *, ping_every_s: float, dead_after_s: float) -> None:
        self.ping_every_s = ping_every_s
        self.dead_after_s = dead_after_s
        self._heard_s = now_s
        self._ticked_s = now_s

    def heard(self, now_s: float) -> None:
        """Something arrived."""
        self._heard_s = now_s

    def tick(self, now_s: float) -> bool:
        """Call every `ping_every_s`; True when the peer is dead."""
        late_s = now_s - self._ticked_s - self.ping_every_s
        self._ticked_s = now_s
        if late_s > self.ping_every_s:
            self._heard_s = max(self._heard_s, now_s - self.dead_after_s + self.ping_every_s)
            return False
        return now_s - self._heard_s > self.dead_after_s
