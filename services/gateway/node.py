"""One gateway process without Ray: the pipeline behind an HTTP and a gRPC port. deployment.py, tests and benches
start it with the callables that find the other services.

Rules: wires things together and keeps them current (policy, keys, readiness); no decisions about requests.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from ..api.openapi import openapi_document
from ..cache.client import CacheClient
from ..cache.key import CacheKeys
from ..clock import Clock, SystemClock
from ..config import GatewayConfig, GraphConfig
from ..conversations.factory import open_shelf
from ..errors import ConfigError, MeshError
from ..experts.adapter_files import base_of
from ..experts.engine import ModelCard
from ..link.asyncio_link import DEAD_AFTER_S, Resolve
from ..postprocess.chain import CompiledPolicy
from ..postprocess.policy import Policy, configured_policy
from ..queue.client import QueueClient
from ..quota.factory import open_quota_store
from ..telemetry.cache_metrics import cache_families, fill_cache_figures
from ..telemetry.gateway import GatewayTelemetry
from ..telemetry.kept_metrics import KeptFigures
from ..telemetry.queue_watch import Fetch, QueueWatch
from ..telemetry.siblings import shared_folder
from .adapter_shelf import AdapterShelf
from .audit import open_audit
from .canary import run_canary
from .credentials import Credentials
from .doorman import Doorman
from .embedding_model import EmbeddingPeer, reached
from .grpc_server import GrpcServer
from .http_app import HttpApp
from .httptools_server import HttpServer
from .journal import Journal
from .mesh import Mesh
from .model import Model
from .model_tokenizer import load_tokenizer
from .models_beside import ModelsBeside
from .mux import EngineMux
from .operator_routes import CacheOperations, QueueOperate
from .pipeline import generated
from .quotas import Quotas
from .readiness import CANARY_EVERY_S
from .tls import TlsFiles

log = logging.getLogger(__name__)

POLICY_WAIT_S = 30.0
TLS_EVERY_S = 1.0
LISTEN_ANYWAY_S = 10.0
"""Below deployment.START_TIMEOUT_S."""
LAST_WORDS_S = 0.5
"""For clients to take what ends their answers."""


class Peers(msgspec.Struct, frozen=True):
    """How to find the other services. All may be called again and again, and may raise while a peer is down."""

    queue: Resolve
    cache: Resolve
    card: Callable[[], Awaitable[ModelCard]]
    policy: Callable[[str, float], Awaitable[Policy | None]]
    queue_view: Fetch | None = None
    cache_operations: CacheOperations | None = None
    journal: Resolve | None = None
    queue_operate: QueueOperate | None = None
    embeddings: EmbeddingPeer | None = None


class GatewayNode:
    """Start with `start`, end with `stop`. `http_port` and `grpc_port` are the ports it listens on."""

    def __init__(self, config: GraphConfig, peers: Peers, *, clock: Clock | None = None) -> None:
        self._config, self._peers = config, peers
        self._clock = clock or SystemClock()
        self._tasks: list[asyncio.Task[None]] = []
        self.http_port = self.grpc_port = 0
        self._credentials = Credentials(config, self._clock)

    async def start(self) -> None:
        """Listen: alone at once, beside other gateways when it can serve. Raises ConfigError (port taken, no keys, TLS
        files that do not fit)."""
        tls = TlsFiles(self._config.gateway.tls) if self._config.gateway.tls.enabled else None
        config, name = self._config, f"gateway-{socket.gethostname()}-{os.getpid()}"
        engines = EngineMux(name, silent_s=max(DEAD_AFTER_S, config.experts.stuck_after_s), clock=self._clock)
        journal = None
        if config.journal.enabled and self._peers.journal is not None:
            journal = Journal(config.journal, self._peers.journal, name)
        secret = config.cache.root_secret.get_secret_value()
        self._quotas = Quotas(self._clock, secret.encode(), await open_quota_store(config.cache, self._clock))
        keys = CacheKeys(bytes.fromhex(secret))
        shelf = await open_shelf(
            config.conversations, config.cache, keys, self._clock, gateways=config.gateway.replicas
        )
        bands = sorted(config.queue.bands, key=lambda band: band.rank)
        self.mesh = Mesh(
            config=config.gateway,
            cache_config=config.cache,
            clock=self._clock,
            identity=self._credentials.identity(),
            queue=QueueClient(self._peers.queue, name, on_fence=engines.fence, clock=self._clock),
            engines=engines,
            cache=CacheClient(config.cache, self._peers.cache, name, self._clock),
            keys=keys,
            policy=CompiledPolicy(configured_policy(config.postprocess)),
            band_ranks={band.name: rank for rank, band in enumerate(bands)},
            telemetry=GatewayTelemetry(
                self._clock, config.gateway.request_log, shared_figures(config.gateway)
            ),
            openapi=openapi_document(config.gateway.limits, stores=shelf is not None),
            cache_operations=self._peers.cache_operations,
            queue_operate=self._peers.queue_operate,
            journal=journal,
            quotas=self._quotas,
            shelf=shelf,
            embeds_as=config.embedding.name,
        )
        self.mesh.telemetry.settle = self._quotas.settle
        if shelf is not None:
            kept = KeptFigures(self.mesh.telemetry.metrics)
            shelf.on_done, shelf.on_bytes = kept.done, kept.bytes
        self.mesh.audit = open_audit(config.gateway.audit, bytes.fromhex(secret), self._clock)
        self._journal = journal
        if config.gateway.remote.enabled:
            from .httpx_remote import open_overflow

            self.mesh.overflow = open_overflow(config.gateway.remote, generated)
        self._door = Doorman(config.gateway.limits.max_offences_per_address, self._clock)
        self._http = HttpServer(HttpApp(self.mesh), config.gateway.limits, self._door)
        engines.on_first = self._http.outbox.flush
        self._grpc = GrpcServer(self.mesh, door=self._door)
        self._beside = ModelsBeside(self.mesh.models, config.experts.model_name, self._model_of)
        self.mesh.queue.on_revisions = self._beside.heard
        self.mesh.queue.start()
        self.mesh.cache.start()
        if journal is not None:
            journal.start()
        for work in (self._load_model(), self._follow_policy(), self._credentials.follow(self.mesh)):
            self._tasks.append(asyncio.create_task(work))
        if self._peers.embeddings is not None:
            self._tasks.append(asyncio.create_task(self._embed_with(self._peers.embeddings)))
        self.mesh.telemetry.fill(self._fill_cache_figures)
        if self._peers.cache_operations is not None:
            stats = self._peers.cache_operations.stats
            self.mesh.telemetry.add(QueueWatch(stats, of=cache_families, whose="the cache"))
        if self._peers.queue_view is not None:
            self.mesh.telemetry.add(QueueWatch(self._peers.queue_view))
        several = config.gateway.replicas > 1
        if several:
            await self._until_able()
        await self._listen(several, tls)
        log.info("gateway listens: http %d, grpc %d", self.http_port, self.grpc_port)

    async def _listen(self, several: bool, tls: TlsFiles | None) -> None:
        gateway = self._config.gateway
        context = tls.http_context() if tls is not None else None
        self.http_port = await self._http.start(
            gateway.host, gateway.http_port, reuse_port=several, tls=context
        )
        self.grpc_port = await self._grpc.start(gateway.host, gateway.grpc_port, reuse_port=several, tls=tls)
        self._door.start(self.http_port, self.grpc_port)
        if tls is not None:
            self._tasks.append(asyncio.create_task(self._follow_tls(tls)))

    async def _until_able(self) -> None:
        """Whoever listens on a port that is shared gets its part of all connections, and takes them from gateways that
        could serve them. So one that begins listens when it can, or when that takes too long: then it may be the only
        one, and says on /readyz what is missing."""
        try:
            async with asyncio.timeout(LISTEN_ANYWAY_S):
                while not self.able:  # noqa: ASYNC110  # once in a process's life, and over for many reasons
                    await asyncio.sleep(0.02)
        except TimeoutError:
            log.info("it listens before it can serve")

    @property
    def able(self) -> bool:
        """The model is known, and whom a request needs is linked."""
        mesh, journal = self.mesh, self._journal
        if not mesh.has_model or (journal is not None and not journal.client.linked):
            return False
        return mesh.queue.revisions(mesh.model.name) is not None

    async def stop(self, grace_s: float, last_words_s: float = LAST_WORDS_S) -> None:
        """Take no more, let streams finish for `grace_s` seconds, tell who is not done, then close everything."""
        self.mesh.readiness.failed("draining")
        self._door.stop()
        telling = asyncio.get_running_loop().call_later(grace_s, self.mesh.calls.end)
        within_s = grace_s + last_words_s
        await asyncio.gather(self._http.stop(within_s), self._grpc.stop(within_s))
        telling.cancel()
        for task in self._tasks:
            task.cancel()
        self._beside.close()
        if self._journal is not None:
            await self._journal.stop()
        await self.mesh.cache.stop()
        await self.mesh.queue.stop()
        self.mesh.engines.stop()
        self.mesh.telemetry.close()
        if self.mesh.overflow is not None:
            await self.mesh.overflow.close()
        await self._quotas.close()
        if self.mesh.shelf is not None:
            await self.mesh.shelf.close()
        if self.mesh.audit is not None:
            await asyncio.to_thread(self.mesh.audit.log.close)

    def _fill_cache_figures(self) -> None:
        stats = msgspec.to_builtins(self.mesh.cache.stats())
        fill_cache_figures(self.mesh.telemetry.metrics, stats)

    async def _load_model(self) -> None:
        while True:
            try:
                card = await self._peers.card()
                self.mesh.models.loading.found()
                experts = self._config.experts
                card = msgspec.structs.replace(
                    card, adapters=experts.adapters, max_adapter_rank=experts.max_adapter_rank
                )
                model = await asyncio.to_thread(self._model_of, card)
                break
            except (ConfigError, OSError, MeshError) as error:
                self.mesh.readiness.failed(str(error))
                log.warning("no model yet: %s", error)
                await asyncio.sleep(1.0)
        self.mesh.models.begin(model)
        await self._prove()

    def _model_of(self, card: ModelCard) -> Model:
        """Reads the model's files. Raises ConfigError, OSError."""
        tokenizer, shelf = load_tokenizer(card.model_path, self._config.gateway.tool_format), None
        if card.adapters:
            base = base_of(card.info.model, card.model_path, card.max_adapter_rank)
            shelf = AdapterShelf(card.adapters, base, self._clock)
        return Model(card.info, tokenizer, template=card.info.revision, adapters=shelf)

    async def _embed_with(self, peer: EmbeddingPeer) -> None:
        self.mesh.embeddings = await reached(peer)

    async def _prove(self) -> None:
        """Keep readiness honest: a canary through the whole graph whenever nothing else proved it."""
        while True:
            now_s = self._clock.now_s()
            if self.mesh.readiness.wants_canary(now_s):
                try:
                    await run_canary(self.mesh)
                    self.mesh.readiness.proven(self._clock.now_s())
                except MeshError as error:
                    self.mesh.readiness.failed(error.message)
            await asyncio.sleep(CANARY_EVERY_S)

    async def _follow_policy(self) -> None:
        while True:
            try:
                policy = await self._peers.policy(self.mesh.policy.version, POLICY_WAIT_S)
                if policy is not None:
                    self.mesh.policy = await asyncio.to_thread(CompiledPolicy, policy)
                    log.info("postprocess policy %s is in force", self.mesh.policy.version)
            except asyncio.CancelledError:
                raise
            except Exception as error:  # the deployment is away: the policy in force stays
                log.warning("no news of the policy: %s", error)
                await asyncio.sleep(1.0)

    async def _follow_tls(self, tls: TlsFiles) -> None:
        """Certificates are renewed while everything runs."""
        while True:
            await asyncio.sleep(TLS_EVERY_S)
            try:
                if tls.refresh():
                    log.info("the certificate was read again")
            except ConfigError as error:
                log.error("the certificate stays as it was: %s", error)


def shared_figures(config: GatewayConfig) -> Path | None:
    """Where gateways that share a port keep their figures for each other's metrics page; None for one alone."""
    return shared_folder(config.http_port) if config.replicas > 1 else None
