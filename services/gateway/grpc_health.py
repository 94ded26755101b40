"""grpc.health.v1, told by the gateway's readiness at the moment of asking: SERVING means that tokens move.

Rules: a shell over readiness.py; decides nothing. Needs no key, as /readyz needs none.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from .doorman import Doorman
from .mesh import Mesh

SERVICE = "expertmesh.v1.Inference"
WATCH_EVERY_S = 0.5

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
_SERVICES = ("", SERVICE)


class Health(health_pb2_grpc.HealthServicer):
    """The standard service. "" is the whole server; it has one service and is as healthy as that."""

    def __init__(self, mesh: Mesh, door: Doorman) -> None:
        self._mesh, self._door = mesh, door
        self._draining = False

    def drain(self) -> None:
        """NOT_SERVING from now on."""
        self._draining = True

    def status(self, service: str) -> int:
        """The status of a service now."""
        if service not in _SERVICES:
            return _UNKNOWN
        ready, _ = self._mesh.verdict()
        return _SERVING if ready and not self._draining else _NOT_SERVING

    async def Check(self, request: Any, context: Any) -> Any:
        self._door.grpc_peer(context.peer(), had_a_key=False)
        status = self.status(request.service)
        if status == _UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, "there is no such service")
        return health_pb2.HealthCheckResponse(status=status)

    async def List(self, request: Any, context: Any) -> Any:
        statuses = {name: health_pb2.HealthCheckResponse(status=self.status(name)) for name in _SERVICES}
        kind = health_pb2.HealthListResponse  # pyright: ignore[reportAttributeAccessIssue] # newer than its stub
        return kind(statuses=statuses)

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self._door.grpc_peer(context.peer(), had_a_key=False)
        last = -1
        while not (self._draining and last == _NOT_SERVING):
            status = self.status(request.service)
            if status != last:
                yield health_pb2.HealthCheckResponse(status=status)
                last = status
            await asyncio.sleep(WATCH_EVERY_S)
