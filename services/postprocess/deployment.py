"""Postprocess as a Ray Serve deployment: the authority on the policy that gateways run inline."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ray import serve

from ..config import GraphConfig
from .policy import Policy, configured_policy
from .publisher import PolicyPublisher, WordFileWatch

if TYPE_CHECKING:
    from ray.serve import Deployment


class Postprocess:
    """Thin: everything is in publisher.py. A restart begins with the configured policy again."""

    async def __init__(self, config: GraphConfig) -> None:
        self._publisher = PolicyPublisher(configured_policy(config.postprocess))
        watch = WordFileWatch(config.postprocess, self._publisher.set_policy)
        self._watching = asyncio.create_task(watch.run())

    async def policy(self, known_version: str = "", wait_s: float = 0.0) -> Policy | None:
        """See PolicyPublisher.policy."""
        return await self._publisher.policy(known_version, wait_s)

    async def set_policy(self, policy: Policy) -> str:
        """Swap the policy while everything runs; returns its version."""
        return self._publisher.set_policy(policy)

    async def check_health(self) -> None:
        """Alive if it answers."""


def postprocess_deployment(config: GraphConfig) -> Deployment:
    """One small replica: gateways ask it once per change, never per request."""
    return serve.deployment(
        name="Postprocess",
        num_replicas=1,
        max_ongoing_requests=1_000,  # one waiting call per gateway
        graceful_shutdown_wait_loop_s=config.gateway.look_s,
        graceful_shutdown_timeout_s=1.0,  # a waiting call is never worth waiting for
        ray_actor_options={"num_cpus": 0, "label_selector": config.placement.control or None},
    )(Postprocess)
