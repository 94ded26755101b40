"""A whole mesh in one process, without Ray: real gateway, queue, cache and links on loopback, simulated engines.

Everything that a request touches is the product's; only placement (Ray) and the model (simulated) are not. Tests
talk HTTP to it, break it, and compare tokens with what the simulated model must say.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from services.audit.record import ErasedPlace
from services.cache.authority import Authority
from services.cache.factory import cache_keys
from services.cache.memory_store import MemoryStore
from services.config import (
    CacheConfig,
    ConversationsConfig,
    EmbeddingConfig,
    ExpertsConfig,
    GatewayConfig,
    GraphConfig,
    JournalConfig,
    LimitsConfig,
    PostprocessConfig,
    QueueConfig,
    TlsConfig,
)
from services.erasure.at_cache import erase_person
from services.experts.engine import ModelCard
from services.experts.rank import Rank
from services.experts.sim_answers import expected_ids
from services.experts.sim_engine import SimEngine
from services.gateway import json_key_store
from services.gateway.embedding_model import EmbeddingPeer
from services.gateway.identity import Permission
from services.gateway.node import GatewayNode, Peers
from services.gateway.operator_routes import CacheOperations, PurgeWish
from services.journal.authority import JournalAuthority
from services.journal.store import JournalStore
from services.postprocess.policy import Policy
from services.queue.authority import QueueAuthority
from services.request import SamplingParams
from services.sim_tokenizer import decode, encode

KEYS = {"acme": "key-of-acme", "rival": "key-of-rival"}


def sim_config(keys_file: Path, **parts: Any) -> GraphConfig:
    """Values for tests: quick steps, small limits where a test wants them."""
    experts = {
        "engine": "sim",
        "model_name": "sim",
        "sim_step_s": 0.002,
        "max_num_seqs": 64,
        "max_model_len": 4096,
    }
    return GraphConfig(
        name="test",
        gateway=GatewayConfig(
            http_port=0,
            grpc_port=0,
            keys_file=str(keys_file),
            request_log=parts.get("request_log", ""),
            limits=LimitsConfig(**parts.get("limits", {})),
            tls=parts.get("tls", TlsConfig()),
            **parts.get("gateway", {}),
        ),
        cache=CacheConfig(**({"root_secret": "5a" * 32, "store_timeout_s": 5.0} | parts.get("cache", {}))),
        queue=QueueConfig(**parts.get("queue", {})),
        conversations=ConversationsConfig(**parts.get("conversations", {})),
        embedding=EmbeddingConfig(**parts.get("embedding", {})),
        experts=ExpertsConfig(**(experts | parts.get("experts", {}))),
        postprocess=PostprocessConfig(**parts.get("postprocess", {})),
        journal=JournalConfig(
            **(
                {"open_timeout_s": 5.0, "restart_grace_s": 0.0, "return_grace_s": 0.0}
                | parts.get("journal", {})
            )
        ),
    )


class LocalMesh:
    """The parts, to be looked into and broken, and a small HTTP client."""

    def __init__(
        self,
        config: GraphConfig,
        journal_store: JournalStore | None = None,
        embeddings: EmbeddingPeer | None = None,
    ) -> None:
        self.config, self._embeddings = config, embeddings
        self._journal_store = journal_store
        self.journal = JournalAuthority(config.journal, journal_store)
        self.queue = QueueAuthority(config.queue)
        self.cache = Authority(MemoryStore(), config.cache)
        self.ranks: list[Rank] = []
        self.gateways: list[GatewayNode] = []
        self.policies: asyncio.Queue[Policy] = asyncio.Queue()
        self._cache_address = self._journal_address = ""
        self.client_tls: ssl.SSLContext | None = None
        """How our own client speaks TLS; None: it does not."""

    async def start(self, engines: int, gateways: int = 1) -> None:
        await self.queue.start()
        self._cache_address = await self.cache.start()
        self._journal_address = await self.journal.start()
        for _ in range(engines):
            await self.add_engine()
        for _ in range(gateways):
            operations = CacheOperations(self._cache_stats, self._cache_purge, self._cache_erase)
            peers = Peers(
                self._queue, self._cache, self._card, self._policy,
                cache_operations=operations, journal=self._find_journal, embeddings=self._embeddings,
            )  # fmt: skip
            gateway = GatewayNode(self.config, peers)
            await gateway.start()
            self.gateways.append(gateway)
        await self.until_ready()

    async def add_engine(self, group: str = "") -> Rank:
        rank = Rank(
            SimEngine.from_config(self.config.experts),
            resolve_queue=self._queue,
            group=group,
            stuck_after_s=self.config.experts.stuck_after_s,
        )
        await rank.start()
        self.ranks.append(rank)
        return rank

    async def stop(self) -> None:
        await asyncio.gather(*(gateway.stop(0.2) for gateway in self.gateways))
        await asyncio.gather(*(rank.stop() for rank in self.ranks))
        await self.cache.stop()
        await self.journal.stop()
        self.queue.close()

    async def kill_gateway(self, number: int) -> None:
        """As kill -9 looks from outside: every connection is cut, nothing is said on any of them."""
        node = self.gateways[number]
        mesh = node.mesh
        links = [mesh.queue._redial, mesh.cache._redial]
        if node._journal is not None:
            links.append(node._journal.client._redial)
        for redial in links:
            await redial.stop()
        for peer in mesh.engines._peers.values():
            if peer.link is not None:
                peer.link.close("killed")
        for connection in node._http.connections:
            connection.transport.abort()
        mesh.calls.forget()
        await node.stop(0.0, 0.0)

    async def restart_journal(self) -> None:
        """A journal that died and came back elsewhere, with what its store kept."""
        await self.journal.stop()
        self.journal = JournalAuthority(self.config.journal, self._journal_store)
        self._journal_address = await self.journal.start()

    async def restart_queue(self) -> None:
        """A queue that died and came back, empty, somewhere else."""
        self.queue.close()
        self.queue = QueueAuthority(self.config.queue)
        await self.queue.start()

    async def _queue(self) -> tuple[str, bytes]:
        return self.queue.address, self.queue.key

    async def _cache(self) -> tuple[str, bytes]:
        return self._cache_address, self.cache.key

    async def _find_journal(self) -> tuple[str, bytes]:
        return self._journal_address, self.journal.key

    async def _cache_stats(self) -> dict[str, object]:
        return msgspec.to_builtins(self.cache.stats())

    async def _cache_purge(self, wish: PurgeWish) -> dict[str, object]:
        keys = cache_keys(self.config.cache)
        if wish.person:
            scope = keys.person_scope(wish.tenant, wish.person)
        else:
            scope = keys.tenant_scope(wish.tenant) if wish.tenant else keys.model_scope(wish.model)
        self.journal.purge(scope)
        return {"scope": scope.hex(), "confirmed": await self.cache.purge(scope)}

    async def _cache_erase(self, wish: PurgeWish) -> list[ErasedPlace]:
        return await erase_person(
            self.cache, self.journal, cache_keys(self.config.cache), wish.tenant, wish.person
        )

    async def _card(self) -> ModelCard:
        info = self.ranks[0].info
        assert info is not None
        return ModelCard(info)

    async def _policy(self, known: str, wait_s: float) -> Policy | None:
        return await self.policies.get()

    # a client ----------------------------------------------------------------------------------------------

    def port(self, gateway: int = 0) -> int:
        return self.gateways[gateway].http_port

    async def until_ready(self) -> None:
        for number in range(len(self.gateways)):
            for _ in range(1000):
                if (await self.get("/readyz", gateway=number))[0] == 200:
                    break
                await asyncio.sleep(0.01)
            else:
                raise AssertionError((await self.get("/readyz", gateway=number))[1])

    async def get(self, path: str, *, tenant: str = "acme", gateway: int = 0) -> tuple[int, str]:
        response = await self.send("GET", path, b"", tenant=tenant, gateway=gateway)
        return response.status, (await response.read()).decode()

    async def post(self, path: str, body: Mapping[str, Any] | bytes, **options: Any) -> Response:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.send("POST", path, data, **options)

    async def json(self, path: str, body: Mapping[str, Any], **options: Any) -> dict[str, Any]:
        """Answer of a request that must succeed."""
        response = await self.post(path, body, **options)
        text = await response.read()
        assert response.status == 200, text
        return json.loads(text)

    async def send_only(self, path: str, body: Mapping[str, Any]) -> Callable[[], None]:
        """Ask and do not read; returns what cuts the connection."""
        data = json.dumps(body).encode()
        _, writer = await asyncio.open_connection("127.0.0.1", self.port())
        head = f"POST {path} HTTP/1.1\r\nhost: test\r\ncontent-length: {len(data)}\r\n"
        writer.write(f"{head}authorization: Bearer {KEYS['acme']}\r\n\r\n".encode() + data)
        return lambda: writer.transport.abort()  # a writer that nobody holds closes its connection

    async def send(
        self,
        method: str,
        path: str,
        data: bytes,
        *,
        tenant: str = "acme",
        gateway: int = 0,
        headers: Mapping[str, str] | None = None,
        receive_buffer: int = 0,
    ) -> Response:
        sock = socket.socket()
        if receive_buffer:  # a client whose host takes little at a time
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port(gateway)))
        name = "localhost" if self.client_tls else None
        reader, writer = await asyncio.open_connection(sock=sock, ssl=self.client_tls, server_hostname=name)
        lines = [
            f"{method} {path} HTTP/1.1",
            "host: test",
            f"content-length: {len(data)}",
            "connection: close",
        ]
        if tenant:
            lines.append(f"authorization: Bearer {KEYS.get(tenant, tenant)}")
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + data)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        found = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        return Response(int(head[0].split()[1]), found, reader, writer)


class Response:
    """Status, lower-case headers, and the body as bytes or as events."""

    def __init__(
        self, status: int, headers: dict[str, str], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.status, self.headers = status, headers
        self._reader, self.writer = reader, writer

    async def read(self) -> bytes:
        data = await self._reader.read()
        self.writer.close()
        if self.headers.get("transfer-encoding") != "chunked":
            return data
        out = b""
        while data:
            size, _, data = data.partition(b"\r\n")
            out, data = out + data[: int(size, 16)], data[int(size, 16) + 2 :]
        return out

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """Server-sent events as they come, without [DONE]."""
        while True:
            line = await self._reader.readline()
            if not line or line == b"0\r\n":
                break
            if line.startswith(b"data: ") and not line.startswith(b"data: [DONE]"):
                yield json.loads(line[6:])
        self.writer.close()

    async def identified(self) -> AsyncIterator[tuple[str, str]]:
        """(event id, data) of each whole event as it comes, [DONE] too."""
        event_id = data = ""
        while True:
            try:
                line = (await self._reader.readline()).rstrip(b"\r\n").decode()
            except ConnectionError:
                return
            if self._reader.at_eof() and not line:
                return
            if line.startswith("id: "):
                event_id = line[4:]
            elif line.startswith("data: "):
                data = line[6:]
            elif not line and data:
                yield event_id, data
                data = ""

    def hang_up(self) -> None:
        self.writer.transport.abort()


def said(prompt: str, num_tokens: int, **sampling: Any) -> str:
    """What the simulated model answers to a plain prompt."""
    params = SamplingParams(max_tokens=num_tokens, **sampling)
    return decode(expected_ids(encode(prompt), num_tokens, params)).decode()


@asynccontextmanager
async def local_mesh(
    tmp_path: Path,
    *,
    engines: int = 2,
    gateways: int = 1,
    journal_store: JournalStore | None = None,
    client_tls: ssl.SSLContext | None = None,
    embeddings: EmbeddingPeer | None = None,
    within_s: float = 120.0,
    **parts: Any,
) -> AsyncIterator[LocalMesh]:
    """A running mesh; everything is stopped at the end, whatever happened, and that is after `within_s` seconds."""
    keys_file = tmp_path / "keys.json"
    for tenant, key in KEYS.items():
        json_key_store.add(
            keys_file, key, key_id=tenant, tenant=tenant, bands=("standard", "vip", "batch"),
            permissions=(Permission.GENERATE, Permission.METRICS, Permission.OPERATE),
        )  # fmt: skip
    mesh = LocalMesh(sim_config(keys_file, **parts), journal_store, embeddings)
    mesh.client_tls = client_tls
    try:
        async with asyncio.timeout(within_s):
            await mesh.start(engines, gateways)
            yield mesh
    finally:
        await mesh.stop()


def plain(value: object) -> Any:
    """Structs as dictionaries, for messages of failed asserts."""
    return msgspec.to_builtins(value)
