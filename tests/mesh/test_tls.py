"""TLS on both ports of a running gateway: versions, clients with certificates, renewal."""

from __future__ import annotations

import asyncio
import os
import ssl
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from services.client.grpc_client import CallFailed, MeshClient, pb, user
from services.config import TlsConfig
from services.errors import ConfigError
from services.gateway import node
from services.gateway.grpc_tls import ONLY_TLS_1_3, speaks_tls_1_2
from tests.certificates import Authority
from tests.mesh.local_mesh import KEYS, LocalMesh, local_mesh, said

CHAT = pb.ChatRequest(
    model="sim", messages=[user("Hello")], sampling=pb.Sampling(max_tokens=3, temperature=1.0)
)
TEXT = {"model": "sim", "prompt": "Hello", "max_tokens": 9}


def served(
    folder: Path, ca: Authority, *, client_ca: Authority | None = None, minimum: str = "1.2"
) -> TlsConfig:
    """TLS 1.2 is allowed where gRPC is not to be held to 1.3: that has to be said before the process starts."""
    certificate, key = ca.issue(folder, "server")
    client = str(client_ca.write(folder, "clients")) if client_ca else ""
    return TlsConfig(
        certificate_file=str(certificate), key_file=str(key), client_ca_file=client, minimum_version=minimum
    )


def trusting(ca: Authority, own: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=ca.pem.decode())
    if own is not None:
        context.load_cert_chain(*own)
    return context


def grpc_client(mesh: LocalMesh, ca: Authority, own: tuple[Path, Path] | None = None) -> MeshClient:
    pair = (own[1].read_bytes(), own[0].read_bytes()) if own else (None, None)
    credentials = grpc.ssl_channel_credentials(ca.pem, *pair)
    return MeshClient(
        f"localhost:{mesh.gateways[0].grpc_port}", KEYS["acme"], deadline_s=20.0, credentials=credentials
    )


async def says(mesh: LocalMesh) -> str:
    return (await mesh.json("/v1/completions", TEXT))["choices"][0]["text"]


def test_both_ports_speak_tls_and_nothing_else(tmp_path: Path) -> None:
    ca = Authority()

    async def main() -> None:
        async with local_mesh(tmp_path, tls=served(tmp_path, ca), client_tls=trusting(ca)) as mesh:
            response = await mesh.post("/v1/completions", {**TEXT, "stream": True})
            assert "".join([e["choices"][0]["text"] async for e in response.events()]) == said("Hello", 9)
            async with grpc_client(mesh, ca) as client:
                assert (await client.chat(CHAT)).usage.completion_tokens == 3
            for port in (mesh.port(), mesh.gateways[0].grpc_port):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
                try:
                    plain = await reader.read()
                except ConnectionError:
                    plain = b""
                assert b"HTTP/1.1" not in plain
                writer.close()
            mesh.client_tls = trusting(Authority("another"))
            with pytest.raises(ssl.SSLCertVerificationError):
                await says(mesh)

    asyncio.run(main())


def test_clients_without_a_certificate_get_no_word(tmp_path: Path) -> None:
    ca, clients = Authority(), Authority("clients")
    own, foreign = clients.issue(tmp_path, "client"), Authority().issue(tmp_path, "foreign")

    async def main() -> None:
        tls = served(tmp_path, ca, client_ca=clients)
        async with local_mesh(tmp_path, tls=tls, client_tls=trusting(ca, own)) as mesh:
            assert await says(mesh) == said("Hello", 9)
            async with grpc_client(mesh, ca, own) as client:
                assert (await client.chat(CHAT)).usage.completion_tokens == 3
            for wrong in (None, foreign):
                mesh.client_tls = trusting(ca, wrong)
                with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
                    await says(mesh)
                async with grpc_client(mesh, ca, wrong) as client:
                    with pytest.raises(CallFailed) as refused:
                        await client.chat(CHAT)
                    assert refused.value.code is grpc.StatusCode.UNAVAILABLE

    asyncio.run(main())


def test_renewal_without_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Certificate, key and client CA are all replaced; a running stream does not notice."""
    monkeypatch.setattr(node, "TLS_EVERY_S", 0.01)
    old, new = Authority("old"), Authority("new")
    old_client, new_client = old.issue(tmp_path, "old client"), new.issue(tmp_path, "new client")

    async def main() -> None:
        tls = served(tmp_path, old, client_ca=old)
        async with local_mesh(tmp_path, tls=tls, client_tls=trusting(old, old_client)) as mesh:
            stream = await mesh.post("/v1/completions", {**TEXT, "max_tokens": 600, "stream": True})
            events = stream.events()
            text = (await anext(events))["choices"][0]["text"]
            served(tmp_path, new, client_ca=new)
            mesh.client_tls = trusting(new, new_client)
            async with asyncio.timeout(20):
                while True:
                    try:
                        assert await says(mesh) == said("Hello", 9)
                        break
                    except (ssl.SSLError, ConnectionError, asyncio.IncompleteReadError):
                        await asyncio.sleep(0.01)
            async with grpc_client(mesh, new, new_client) as client:
                assert (await client.chat(CHAT)).usage.completion_tokens == 3
            mesh.client_tls = trusting(new, old_client)
            with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
                await says(mesh)
            async with grpc_client(mesh, new, old_client) as client:
                with pytest.raises(CallFailed):
                    await client.chat(CHAT)
            text += "".join([event["choices"][0]["text"] async for event in events])
            assert text == said("Hello", 600)

    asyncio.run(main())


ONLY_1_3 = """
import asyncio, sys
from pathlib import Path
from tests.certificates import Authority
from tests.mesh import test_tls

asyncio.run(test_tls.only_tls_1_3(Path(sys.argv[1])))
"""


async def only_tls_1_3(folder: Path) -> None:
    """In a process of its own, whose gRPC was told so before it started."""
    ca = Authority()
    tls = served(folder, ca, minimum="1.3")
    async with local_mesh(folder, tls=tls, client_tls=trusting(ca)) as mesh:
        for port in (mesh.port(), mesh.gateways[0].grpc_port):
            assert not await speaks_tls_1_2("127.0.0.1", port)
        assert await says(mesh) == said("Hello", 9)
        async with grpc_client(mesh, ca) as client:
            assert (await client.chat(CHAT)).usage.completion_tokens == 3


def test_tls_1_3_alone(tmp_path: Path) -> None:
    environment = {**os.environ, **ONLY_TLS_1_3}
    subprocess.run([sys.executable, "-c", ONLY_1_3, str(tmp_path)], env=environment, check=True, timeout=120)


def test_a_process_that_cannot_keep_to_1_3_says_so(tmp_path: Path) -> None:
    ca = Authority()

    async def main() -> None:
        with pytest.raises(ConfigError, match="GRPC_SSL_CIPHER_SUITES"):
            async with local_mesh(tmp_path, tls=served(tmp_path, ca, minimum="1.3")):
                pass

    asyncio.run(main())
