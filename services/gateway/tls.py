"""TLS of the gateway's two ports: do the files fit, what do they hold, did they change.

Rules: the standard library's ssl and files, no server: httptools_server.py and grpc_server.py ask here. Checked before
anything listens, one error for each thing that can be wrong. Later changes that do not fit leave in force what was.
"""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import NamedTuple

from ..config import TlsConfig
from ..errors import ConfigError

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_SETTINGS = ("EXPERTMESH_TLS_CERTIFICATE", "EXPERTMESH_TLS_KEY", "EXPERTMESH_TLS_CLIENT_CA")


class TlsIdentity(NamedTuple):
    """What is in force: PEM for gRPC, the same as a context for HTTP. `client_ca` is empty without mTLS."""

    certificate: bytes
    key: bytes
    client_ca: bytes
    context: ssl.SSLContext


class TlsFiles:
    """The files of a TlsConfig. `current` is what new connections get. Raises ConfigError unless they fit together."""

    def __init__(self, config: TlsConfig) -> None:
        self._config = config
        self._paths = (config.certificate_file, config.key_file, config.client_ca_file)
        self._stamps = self._look()
        self.current = self._read()

    @property
    def minimum_version(self) -> ssl.TLSVersion:
        return _VERSIONS[self._config.minimum_version]

    def refresh(self) -> bool:
        """Read the files again if they changed; True when what they hold is now in force. Raises ConfigError once
        for a change that does not fit (a half-written pair fits with its second file)."""
        stamps = self._look()
        if stamps == self._stamps:
            return False
        self._stamps = stamps
        self.current = self._read()
        return True

    def http_context(self) -> ssl.SSLContext:
        """For a server that keeps one context: each handshake, with a server name or without, takes the current
        identity. Verification of clients follows too: OpenSSL asks the context that was put in its place."""
        context = self._context()

        def current(handshake: ssl.SSLObject | ssl.SSLSocket, _name: str | None, _: ssl.SSLContext) -> None:
            handshake.context = self.current.context

        context.sni_callback = current  # type: ignore[assignment]  # typeshed wants a return value that may be None
        return context

    def _look(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(_stamp(path) for path in self._paths)

    def _read(self) -> TlsIdentity:
        if not (self._config.certificate_file and self._config.key_file):
            raise ConfigError(f"TLS needs a certificate and its key: set {_SETTINGS[0]} and {_SETTINGS[1]}")
        certificate, key, client_ca = (_content(*each) for each in zip(self._paths, _SETTINGS, strict=True))
        _must_hold(certificate, b"BEGIN CERTIFICATE", self._paths[0], "a certificate in PEM")
        _must_hold(key, b"PRIVATE KEY-----", self._paths[1], "a private key in PEM")
        if client_ca:
            _must_hold(client_ca, b"BEGIN CERTIFICATE", self._paths[2], "a CA's certificate in PEM")
        return TlsIdentity(certificate, key, client_ca, self._context())

    def _context(self) -> ssl.SSLContext:
        certificate, key, client_ca = self._paths
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = self.minimum_version
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(certificate, key, password=_no_password(key))
        except ssl.SSLError as error:
            if error.reason in ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"):
                raise ConfigError(f"{key} is not the key of the certificate in {certificate}") from None
            raise ConfigError(f"{certificate} or {key} is damaged ({error.reason or error})") from None
        except OSError as error:
            raise ConfigError(f"{certificate} or {key} cannot be read ({error.strerror})") from None
        if client_ca:
            try:
                context.load_verify_locations(client_ca)
            except (ssl.SSLError, OSError) as error:
                raise ConfigError(f"{client_ca} is damaged ({error})") from None
            context.verify_mode = ssl.CERT_REQUIRED
            context.num_tickets = 0  # a resumed session would outlive the removal of its CA
        return context


def _stamp(path: str) -> tuple[int, int, int] | None:
    """Differs when the file does; a link that points elsewhere (Kubernetes' mounts) is another inode."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _content(path: str, setting: str) -> bytes:
    if not path:
        return b""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{setting}: {path} cannot be read ({error.strerror})") from None


def _must_hold(content: bytes, mark: bytes, path: str, what: str) -> None:
    if mark not in content:
        raise ConfigError(f"{path} does not hold {what}")


class _no_password:
    """Called by OpenSSL for an encrypted key, where Python would otherwise ask on the terminal."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self) -> str:
        raise ConfigError(
            f"{self._key} is encrypted; give the gateway a key that is not (openssl pkey -in …)"
        )
