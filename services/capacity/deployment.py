"""The control loop as a Ray Serve deployment: one replica, on the head.

Here, and only here, the capacity service meets Ray: which node has which cloud id (a label that bootstrap sets),
whether anything of ours still runs on it, the drain itself through `ray_drain`, and the handle to the queue.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any, cast

import ray
from ray import serve
from ray._private.state import actors as known_actors
from ray.serve.handle import DeploymentHandle
from ray.util.metrics import Gauge

from ..clock import SystemClock
from ..config import CapacityConfig
from .controller import Controller, MeshDrainError
from .figures import NODES_METRIC, NODES_TEXT, pool_figures
from .nodes import Nodes, NoticeQueue
from .queue_demand import QueueDemand
from .ray_drain import DrainRefused, RayDrain

log = logging.getLogger(__name__)

INSTANCE_LABEL = "expertmesh.io/instance-id"
STUCK_PERIODS = 12
"""A loop that did not come round for so many periods is replaced."""
ANSWER_WITHIN_S = 2.0
"""The queue answers in milliseconds, or is away; a notice must not wait for it."""


class RayMesh:
    """`MeshDrain` over a running Ray. Cordon and migration follow from the drain: Ray places nothing on a
    draining node, Serve (2.60) starts replacements and lets replicas finish, and a replica that stops makes its
    gateways resubmit what it still ran. Both are therefore one call here, made by `drain`."""

    def __init__(self, drain: RayDrain, nodes: Callable[[], list[dict[str, Any]]] = ray.nodes) -> None:
        self._drain, self._nodes = drain, nodes

    def cordon(self, instance_id: str) -> None:
        """Nothing beside the drain, which follows in the same step."""

    def migrate(self, instance_id: str, within_s: float) -> None:
        """Nothing beside the drain, which follows in the same step."""

    def drain(self, instance_id: str, within_s: float | None, preempted: bool) -> None:
        node_id = self._node_id(instance_id)
        if node_id is None:
            return  # never joined, or gone: nothing runs there
        try:
            why = "the cloud wants it back" if preempted else "its pool shrinks"
            self._drain.drain(node_id, within_s, f"{instance_id}: {why}")
        except DrainRefused as error:
            raise MeshDrainError(str(error)) from error

    def is_empty(self, instance_id: str) -> bool:
        node_id = self._node_id(instance_id)
        if node_id is None:
            return True
        # Asked of the GCS, since the public state API wants a dashboard beside it.
        alive = cast("dict[str, dict[str, Any]]", known_actors(actor_state_name="ALIVE")).values()
        # Serve's proxy and controller-side helpers live as long as the node; replicas are what we wait for.
        return not any(
            actor["Address"]["NodeID"] == node_id and "ServeReplica" in actor["ActorClassName"]
            for actor in alive
        )

    def _node_id(self, instance_id: str) -> str | None:
        for node in self._nodes():
            if node.get("Alive") and node.get("Labels", {}).get(INSTANCE_LABEL) == instance_id:
                return str(node["NodeID"])
        return None


def build_ports(config: CapacityConfig) -> tuple[Nodes, NoticeQueue | None]:
    """The cloud's adapters, or fakes where no region is set (`dev`)."""
    if config.region is None:
        from .memory_nodes import MemoryNodes

        nodes = MemoryNodes()
        for pool in config.pools.values():
            nodes.add_group(pool.asg, pool.min_size, pool.max_size)
        return nodes, None
    from .ec2_nodes import Ec2Nodes
    from .sqs_events import SqsNoticeQueue

    queue = (
        SqsNoticeQueue(config.node_events_queue_url, config.region) if config.node_events_queue_url else None
    )
    return Ec2Nodes(config.region), queue


class AskQueue:
    """The snapshots of the queue of application `mesh`, over one handle. Blocks; raises what Serve raises."""

    def __init__(self, mesh: str) -> None:
        self._mesh = mesh
        self._handle: DeploymentHandle[Any] | None = None

    def __call__(self) -> object:
        if self._handle is None:  # the mesh may come up after us
            self._handle = serve.get_deployment_handle("PriorityQueue", app_name=self._mesh)
        return self._handle.snapshot.remote().result(timeout_s=ANSWER_WITHIN_S)


@serve.deployment(
    name="Capacity",
    num_replicas=1,
    ray_actor_options={"num_cpus": 0},
    health_check_period_s=5.0,
    health_check_timeout_s=10.0,
    graceful_shutdown_timeout_s=5.0,
)
class Capacity:
    """Runs `Controller.step` in a thread of its own, period after period."""

    def __init__(self, config: CapacityConfig) -> None:
        self._config = config
        self._clock = SystemClock()
        self._demand = QueueDemand(config, AskQueue(config.mesh), self._clock)
        self._gauge = Gauge(NODES_METRIC, description=NODES_TEXT, tag_keys=("pool", "state"))
        nodes, queue = build_ports(config)
        address = ray.get_runtime_context().gcs_address
        environment = {k: v for k, v in os.environ.items() if k.startswith("RAY_AUTH_")}
        mesh = RayMesh(RayDrain(address, environment))
        self._controller = Controller(config, nodes, queue, mesh, self._clock, self._demand)
        self._came_round_s = self._clock.now_s()
        self._stop = threading.Event()
        threading.Thread(target=self._loop, name="capacity", daemon=True).start()

    def want(self, nodes_by_pool: Mapping[str, int]) -> None:
        """At least so many nodes from now on, whatever the queue holds: ahead of a peak that is known to come. Pools
        that are not named have no such minimum any more. Raises ValueError for an unknown pool."""
        self._demand.want(nodes_by_pool)

    def status(self) -> dict[str, Any]:
        """The pools in figures, what is on its way out, and what failed in the last round."""
        nodes = {
            key: {"phase": node.phase.name.lower(), "deadline_s": node.deadline_s}
            for key, node in self._controller.state.nodes.items()
        }
        return {
            "pools": self._figures(),
            "nodes": nodes,
            "failures": self._failures(),
            "at_least": dict(self._demand.least),
        }

    def _figures(self) -> dict[str, dict[str, int]]:
        return pool_figures(
            self._controller.views, self._demand.wanted, self._controller.lent, self._demand.models
        )

    def _failures(self) -> list[str]:
        return [*self._controller.failures, *([self._demand.failure] if self._demand.failure else [])]

    def check_health(self) -> None:
        silent_s = self._clock.now_s() - self._came_round_s
        if silent_s > STUCK_PERIODS * self._config.period_s + 30.0:
            raise RuntimeError(f"the capacity loop has not come round for {silent_s:.0f} s")

    def _loop(self) -> None:
        while not self._stop.wait(
            self._config.period_s if self._config.node_events_queue_url is None else 0.1
        ):
            try:
                self._controller.step(wait_s=min(self._config.period_s, 20.0))
            except Exception:  # a bug in one round must not end the loop; it shows in the log and the status
                log.exception("a round of the capacity loop failed")
            self._came_round_s = self._clock.now_s()
            for failure in self._failures():
                log.warning("capacity: %s", failure)
            for pool, states in self._figures().items():
                for state, nodes in states.items():
                    self._gauge.set(nodes, {"pool": pool, "state": state})

    def __del__(self) -> None:
        self._stop.set()


def capacity_deployment(config: CapacityConfig) -> serve.Application:
    """The controller, bound to the head: it must outlive every machine that it drains."""
    options = {"num_cpus": 0, "label_selector": {"expertmesh.io/tier": "head"}}
    return Capacity.options(ray_actor_options=options).bind(config)
