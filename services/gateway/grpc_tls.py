"""TLS of the gRPC port: credentials that follow the files, and how grpc is held to TLS 1.3.

Rules: grpc's own means only. It has no setting for the lowest version; what it has is the list of TLS 1.2's cipher
suites, read from the environment when grpc is imported (1.3's suites are fixed). A list of suites that need a shared
secret, which this server never has, leaves TLS 1.2 nothing to agree on. So the environment has to be set before the
process starts (deployment.py does that), and the server makes sure by asking itself.
"""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress

import grpc

from .tls import TlsFiles, TlsIdentity

ONLY_TLS_1_3 = {"GRPC_SSL_CIPHER_SUITES": "PSK-AES128-CBC-SHA"}
"""The environment of a process whose gRPC is to speak TLS 1.3 alone."""

_HANDSHAKE_RECORD = b"\x16"
_ASK_WITHIN_S = 5.0


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Asked at each handshake, so that a changed certificate is served from the next connection on."""
    served = files.current

    def changed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal served
        if files.current is served:
            return None
        served = files.current
        return _configuration(served)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(served),
        changed,  # type: ignore[arg-type]  # None means "as before", which the stub leaves out
        require_client_authentication=bool(served.client_ca),
    )


def _configuration(identity: TlsIdentity) -> grpc.ServerCertificateConfiguration:
    pairs = [(identity.key, identity.certificate)]
    return grpc.ssl_server_certificate_configuration(pairs, root_certificates=identity.client_ca or None)


async def speaks_tls_1_2(host: str, port: int) -> bool:
    """Whether a server answers a hello of TLS 1.2 with one of its own. Raises OSError, TimeoutError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    sent = ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), sent).do_handshake()  # as far as its hello
    async with asyncio.timeout(_ASK_WITHIN_S):
        reader, writer = await asyncio.open_connection(host, port)
        try:
            writer.write(sent.read())
            return await reader.read(1) == _HANDSHAKE_RECORD
        except ConnectionError:
            return False
        finally:
            writer.close()
