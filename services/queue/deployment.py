"""The queue as a Ray Serve deployment: one replica, because one authority decides (architecture §4).

Gateways and engines ask for `endpoint()` once per connection; everything else goes over their links. When the
replica dies, Serve starts another, and authority.py's soft state comes back from its clients.
"""

from __future__ import annotations

import logging

import msgspec
from ray import serve

from ..config import GraphConfig, QueueConfig
from ..errors import ServiceError
from ..outcome import Reason
from .authority import QueueAuthority
from .rollout.operations import Wish
from .ordering import make_ordering

log = logging.getLogger(__name__)

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

    def __init__(self, config: QueueConfig) -> None:
        self._config = config
        self._authority: QueueAuthority | None = None

    async def _started(self) -> QueueAuthority:
        if self._authority is None:
            authority = self._authority = QueueAuthority(self._config)
            await authority.start()
            log.info("the queue listens at %s", authority.address)
        return self._authority

    async def endpoint(self) -> tuple[str, bytes]:
        """Address and key of the queue's link."""
        authority = await self._started()
        return authority.address, authority.key

    async def snapshot(self) -> list[dict[str, object]]:
        """What `expertmesh queue` and the metrics show, one entry per model, as plain data."""
        authority = await self._started()
        return msgspec.to_builtins(authority.snapshot())

    async def set_limits(self, config: QueueConfig) -> None:
        """Change limits without a restart. Raises ConfigError when bands or ordering would change."""
        authority = await self._started()
        authority.set_limits(config)

    async def operate(self, wish: bytes) -> dict[str, object]:
        """Releases and workers, as operators steer them (rollout/operations.py; `wish` is msgpack of a Wish). Raises
        ConfigError."""
        authority = await self._started()
        return authority.operate(msgspec.msgpack.decode(wish, type=Wish))

    async def check_health(self) -> None:
        """Raise when the authority's event loop stands still."""
        authority = self._authority
        if authority is not None and authority.silent_s() > STUCK_S:
            raise ServiceError(Reason.INTERNAL, "the queue does not tick")


def queue_deployment(config: GraphConfig) -> serve.Deployment:
    """The deployment for these settings; bind it with `config.queue`. Touches no cluster. Raises ConfigError for an
    unknown ordering: here, before anything starts, and not in a replica that would never be ready."""
    make_ordering(config.queue.ordering, None)
    return PriorityQueue.options(
        ray_actor_options={"num_cpus": 0, "label_selector": config.placement.control or None}
    )
