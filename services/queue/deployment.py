"""The queue as a Ray Serve deployment: one replica, because one authority decides (architecture §4).

The replica keeps the queue and is not the queue: that is a process of its own (uvloop_process.py), so that a replica
which dies takes nothing along, and Serve's seconds to start another stop nobody. Gateways and engines ask for
`endpoint()` once per connection; everything else goes over their links. When the queue's process dies, the next
question starts another, and authority.py's soft state comes back from its clients.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets

import ray
from ray import serve
from ray.serve.exceptions import RayServeException

from ..config import GraphConfig, QueueConfig
from ..errors import ServiceError
from ..outcome import Reason
from .keeper import Keeper, Question
from .ordering import make_ordering

STUCK_S = 5.0
"""An authority that did not tick for so long is replaced."""


@serve.deployment(
    name="PriorityQueue",
    num_replicas=1,
    max_ongoing_requests=1000,
    ray_actor_options={"num_cpus": 0},
    health_check_period_s=1.0,
    health_check_timeout_s=5.0,
    graceful_shutdown_timeout_s=1.0,
)
class PriorityQueue:
    """See the module."""

    async def __init__(self, config: QueueConfig) -> None:
        where, owner = _place(config)
        name = f"expertmesh-queue-{hashlib.blake2b(where.encode(), digest_size=12).hexdigest()}"
        self._keeper = Keeper(config, name, owner)
        self._first = asyncio.create_task(self._keeper.ask(Question("silent")))  # starts it, or finds it

    async def endpoint(self) -> tuple[str, bytes]:
        """Address and key of the queue's link."""
        return await self._keeper.endpoint()

    async def snapshot(self) -> list[dict[str, object]]:
        """What `expertmesh queue` and the metrics show, one entry per model, as plain data."""
        return await self._keeper.ask(Question("snapshot"))

    async def operate(self, wish: bytes) -> dict[str, object]:
        """Limits, releases and workers, as operators steer them (limits.py, rollout/operations.py; `wish` is msgpack of
        a Wish). Raises ConfigError."""
        return await self._keeper.ask(Question("operate", wish))

    async def check_health(self) -> None:
        """A process that died, or does not answer, is replaced by the question; raise when that does not help."""
        if await self._keeper.ask(Question("silent")) > STUCK_S:
            raise ServiceError(Reason.INTERNAL, "the queue does not tick")

    async def __del__(self) -> None:
        """Serve awaits this when the deployment goes in order; a replica that is killed leaves the queue running."""
        await self._keeper.stop()


def _place(config: QueueConfig) -> tuple[str, int]:
    """What tells this mesh's queue from others on the node, and the process that it ends with."""
    try:
        app = serve.get_replica_context().app_name
    except RayServeException:  # Serve's local testing mode: a queue for each start, as long as we live
        return secrets.token_hex(16), os.getpid()
    # The raylet is the parent of every worker, and gone when Ray is.
    return f"{ray.get_runtime_context().get_node_id()} {app} {config.model_dump_json()}", os.getppid()


def queue_deployment(config: GraphConfig) -> serve.Deployment:
    """The deployment for these settings; bind it with `config.queue`. Touches no cluster. Raises ConfigError for an
    unknown ordering: here, before anything starts, and not in a replica that would never be ready."""
    make_ordering(config.queue.ordering, None)
    return PriorityQueue.options(
        graceful_shutdown_wait_loop_s=config.gateway.look_s,
        ray_actor_options={"num_cpus": 0, "label_selector": config.placement.control or None},
    )
