"""The gateway as a Ray Serve deployment: ingress on its node, on ports of its own.

Thin: GatewayNode (node.py) does everything; this file finds the other deployments by their handles. The data plane
runs on a uvloop in a thread of its own, so that Serve's health checks, metrics and handle calls, which live on the
replica's loop, never stand between two tokens.

Serve's own HTTP proxy is switched off, because `serve run` would start it on the gateway's port: a deployment's
handle costs a token 764 µs, our socket costs 10 (docs/adr/0002). `serve run` takes no option for that, but Serve
starts no proxy where `HTTPOptions.host` is None, and it reads that default after it imported the graph.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import msgspec
import uvloop
from ray import serve
from ray.exceptions import RayTaskError
from ray.serve.config import HTTPOptions
from ray.serve.handle import DeploymentHandle

from .. import memory, ray_sigterm
from ..audit.record import ErasedPlace
from ..config import GraphConfig
from ..embedding.service import EmbedCard
from ..errors import ConfigError, MeshError, ServiceError
from ..experts.engine import ModelCard
from ..outcome import Reason
from ..postprocess.policy import Policy
from ..queue.rollout.operations import Wish
from .grpc_tls import ONLY_TLS_1_3
from .node import GatewayNode, Peers
from .operator_routes import CacheOperations, Figures, PurgeWish

HTTPOptions.model_fields["host"].default = None
HTTPOptions.model_rebuild(force=True)

log = logging.getLogger(__name__)
T = TypeVar("T")

START_TIMEOUT_S = 30.0
SHUTDOWN_MARGIN_S = 5.0
LOOP_STUCK_S = 5.0


class Embeddings:
    """The embedding service by its handle (embedding_model.EmbeddingPeer)."""

    def __init__(self, ask: Callable[..., Awaitable[Any]], handle: DeploymentHandle[Any]) -> None:
        self._ask, self._handle = ask, handle

    async def card(self) -> EmbedCard:
        return await self._ask(self._handle.card.remote)

    async def embed(self, wish: bytes) -> bytes:
        return await self._ask(lambda: self._handle.embed.remote(wish))


class Gateway:
    """One gateway process."""

    async def __init__(
        self,
        config: GraphConfig,
        cache: DeploymentHandle[Any],
        queue: DeploymentHandle[Any],
        experts: DeploymentHandle[Any],
        postprocess: DeploymentHandle[Any],
        embeddings: DeploymentHandle[Any] | None = None,
    ) -> None:
        self._handles_loop = asyncio.get_running_loop()
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="data-plane", daemon=True)
        self._drain_s, self._end_s = config.gateway.drain_s, config.gateway.ends_within_s

        async def card() -> ModelCard:
            return await self._ask(experts.card.remote)

        async def policy(known: str, wait_s: float) -> Policy | None:
            return await self._ask(lambda: postprocess.policy.remote(known, wait_s))

        async def queue_endpoint() -> tuple[str, bytes]:
            return await self._ask(queue.endpoint.remote)

        async def cache_endpoint() -> tuple[str, bytes]:
            return await self._ask(cache.endpoint.remote)

        async def journal_endpoint() -> tuple[str, bytes]:
            return await self._ask(cache.journal_endpoint.remote)

        async def queue_view() -> list[dict[str, Any]]:
            return await self._ask(queue.snapshot.remote)

        async def cache_stats() -> Figures:
            return await self._ask(cache.stats.remote)

        async def cache_purge(wish: PurgeWish) -> Figures:
            return await self._ask(lambda: cache.purge.remote(wish.tenant, wish.person, wish.model))

        async def queue_operate(wish: Wish) -> Figures:
            return await self._ask(lambda: queue.operate.remote(msgspec.msgpack.encode(wish)))

        async def cache_erase(wish: PurgeWish) -> list[ErasedPlace]:
            return await self._ask(lambda: cache.erase.remote(wish.tenant, wish.person))

        operations = CacheOperations(cache_stats, cache_purge, cache_erase)
        peers = Peers(
            queue_endpoint, cache_endpoint, card, policy, queue_view, operations, journal=journal_endpoint,
            queue_operate=queue_operate, embeddings=Embeddings(self._ask, embeddings) if embeddings else None,
        )  # fmt: skip
        self._node = GatewayNode(config, peers)
        self._thread.start()
        self._ending: asyncio.Task[None] | None = None
        ray_sigterm.tell(self._told_to_go)
        async with asyncio.timeout(START_TIMEOUT_S):
            await self._on_data_plane(self._node.start())
        memory.settle()

    async def check_health(self) -> None:
        """Raises when the data plane's event loop stands still. Not ready is not unhealthy: see /readyz."""
        try:
            async with asyncio.timeout(LOOP_STUCK_S):
                await self._on_data_plane(asyncio.sleep(0))
        except TimeoutError:
            raise ServiceError(Reason.INTERNAL, "the gateway's event loop is stuck") from None

    async def ports(self) -> tuple[int, int]:
        """HTTP and gRPC."""
        return self._node.http_port, self._node.grpc_port

    async def __del__(self) -> None:
        """Serve awaits this before it ends the replica: streams may finish."""
        await self._end(self._end_s)

    async def _end(self, grace_s: float) -> None:
        if self._thread.is_alive():
            await self._on_data_plane(self._node.stop(grace_s))
            self._loop.call_soon_threadsafe(self._loop.stop)

    def _told_to_go(self) -> None:
        """SIGTERM: as above, and Serve starts another as soon as this process is gone. Told twice: at once."""
        if self._ending is not None:
            os._exit(1)
        log.warning("SIGTERM: the gateway drains, and ends")
        self._ending = asyncio.get_running_loop().create_task(self._drain_and_end())

    async def _drain_and_end(self) -> None:
        try:
            async with asyncio.timeout(self._drain_s + SHUTDOWN_MARGIN_S):
                await self._end(self._drain_s)
        finally:
            os._exit(1)

    async def _on_data_plane(self, work: Coroutine[Any, Any, T]) -> T:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    async def _ask(self, call: Callable[[], Awaitable[T]]) -> T:
        """A handle call from the data plane, run on the loop that Serve made for handles."""

        async def ask() -> T:
            return await call()

        try:
            return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(ask(), self._handles_loop))
        except MeshError:
            raise
        except RayTaskError as error:
            if isinstance(error.cause, ConfigError):
                raise error.cause from None  # the operator's, not the deployment's
            raise ServiceError(Reason.INTERNAL, f"a deployment failed: {error.cause}") from error
        except Exception as error:
            raise ServiceError(Reason.NOT_READY, f"a deployment is out of reach: {error}") from error


def gateway_deployment(config: GraphConfig) -> serve.Deployment:
    """One replica per wanted gateway; they share the ports by SO_REUSEPORT."""
    options: dict[str, Any] = {"num_cpus": 0, "label_selector": config.placement.gateway or None}
    if config.gateway.tls.enabled and config.gateway.tls.minimum_version == "1.3":
        options["runtime_env"] = {"env_vars": ONLY_TLS_1_3}
    return serve.deployment(
        name="Gateway",
        num_replicas=config.gateway.replicas,
        max_ongoing_requests=1000,
        health_check_period_s=2.0,
        health_check_timeout_s=10.0,
        graceful_shutdown_timeout_s=config.gateway.ends_within_s + SHUTDOWN_MARGIN_S,
        graceful_shutdown_wait_loop_s=config.gateway.look_s,
        ray_actor_options=options,
    )(Gateway)
