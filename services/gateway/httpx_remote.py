"""The remote server over HTTP/1.1, by httpx.

Rules: opens, hands on raw bytes as they come, closes; what they mean is remote_wire.py's. TLS is always verified; no
proxy, no netrc, no certificate comes from the environment; redirects are not followed; nothing compressed is asked for
or taken. Every failure is a RemoteFault.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from ..config_remote import RemoteConfig
from ..errors import ConfigError
from .overflow import Local, Overflow
from .remote_wire import RemoteFault, status_fault

MAX_KEY_BYTES = 4096


class HttpxRemote:
    """One per gateway; on its event loop. Raises ConfigError: the key or the CA file cannot be read."""

    def __init__(self, config: RemoteConfig) -> None:
        self._url = f"{config.url}/chat/completions"
        self._key_file, self._key_time, self._key = config.key_file, 0, ""
        try:
            self._fresh_key()
            # With a file of ours only what it holds counts; else the authorities that httpx brings (certifi).
            verify = ssl.create_default_context(cafile=config.ca_file) if config.ca_file else True
        except (OSError, ValueError) as error:
            raise ConfigError(f"the remote server's key or CA file cannot be used: {error}") from error
        timeout = httpx.Timeout(config.first_timeout_s, connect=config.connect_timeout_s)
        if config.idle_timeout_s > config.first_timeout_s:
            timeout.read = config.idle_timeout_s
        self._client = httpx.AsyncClient(
            verify=verify, trust_env=False, follow_redirects=False, timeout=timeout,
            limits=httpx.Limits(max_connections=config.max_concurrent, max_keepalive_connections=0),
            headers={"user-agent": "expertmesh", "accept-encoding": "identity", "accept": "text/event-stream"},
        )  # fmt: skip

    @asynccontextmanager
    async def ask(self, body: bytes) -> AsyncGenerator[AsyncIterator[bytes]]:
        """The body of its answer. Leaving closes the connection. Raises RemoteFault, there and while it is read."""
        headers = {"content-type": "application/json"}
        try:
            self._fresh_key()
        except (OSError, ValueError):
            raise RemoteFault("key") from None
        if self._key:
            headers["authorization"] = f"Bearer {self._key}"
        try:
            async with self._client.stream("POST", self._url, content=body, headers=headers) as answer:
                fault = status_fault(answer.status_code)
                if fault is not None:
                    raise RemoteFault(fault)
                if not answer.headers.get("content-type", "").lower().startswith("text/event-stream"):
                    raise RemoteFault("garbage")
                if answer.headers.get("content-encoding", "identity").lower() != "identity":
                    raise RemoteFault("garbage")
                yield answer.aiter_raw()
        except httpx.ConnectError as error:
            raise RemoteFault("tls" if _of_tls(error) else "connect") from None
        except (httpx.ConnectTimeout, httpx.PoolTimeout):
            raise RemoteFault("connect") from None
        except httpx.TimeoutException:
            raise RemoteFault("silent") from None
        except (httpx.HTTPError, httpx.StreamError):
            raise RemoteFault("cut") from None

    async def close(self) -> None:
        """Cut every connection."""
        await self._client.aclose()

    def _fresh_key(self) -> None:
        """Raises OSError, ValueError."""
        if not self._key_file:
            return
        path = Path(self._key_file)
        changed = path.stat().st_mtime_ns
        if changed != self._key_time:
            key = path.read_bytes()[:MAX_KEY_BYTES].decode("ascii").strip()
            if not key or not key.isprintable() or " " in key:
                raise ValueError(f"{self._key_file} holds no key")
            self._key, self._key_time = key, changed


def open_overflow(config: RemoteConfig, local: Local) -> Overflow:
    """As the gateway uses it. Raises ConfigError."""
    return Overflow(config, HttpxRemote(config), local)


def _of_tls(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return True
        error = error.__cause__ or error.__context__
    return False
