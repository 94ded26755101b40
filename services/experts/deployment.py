"""ExpertShards as a Ray Serve deployment: one rank is one replica, one group is one gang.

Rules: the only file of this package that knows Ray. It finds the rank's place (gang, cores, where the ranks
meet), gives it to the engine, and puts rank.py's health, drain and end under Serve's names.

A gang lives and dies together: when a replica dies or says that it is unhealthy, Serve ends and restarts them all.
A replica whose engine stopped moving tokens ends its own process, after it gave its streams back: Serve sees a
dead process at once, and three failed health checks only after three periods.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import math
import os
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, cast

import ray
from ray import serve
from ray._raylet import GcsClient  # pyright: ignore[reportAttributeAccessIssue] # compiled
from ray.exceptions import RayError
from ray.experimental.internal_kv import (
    _internal_kv_get,  # pyright: ignore[reportPrivateUsage]
    _internal_kv_put,  # pyright: ignore[reportPrivateUsage]
)
from ray.serve.config import GangPlacementStrategy, GangRuntimeFailurePolicy, GangSchedulingConfig
from ray.serve.exceptions import RayServeException
from ray.serve.gang import GangContext
from ray.serve.handle import DeploymentHandle

from .. import ray_sigterm
from ..config import ExpertsConfig, GraphConfig
from ..errors import ConfigError
from ..ports import free_port
from . import drain_rule, remote_rank
from .commission import Commission
from .commission import rank as commissioned
from .engine import ModelCard, card_of
from .groups import RankPlace, bundle, split_cores
from .rank import Rank
from .remote_rank import RemoteRank

log = logging.getLogger(__name__)

MEET_TIMEOUT_S = 120.0
MEET_POLL_S = 0.1
HAND_BACK_S = 3.0
"""Streams of a node that leaves are handed back so long before its end."""

INSTANCE_LABEL, TIER_LABEL = "expertmesh.io/instance-id", "expertmesh.io/tier"
MACHINES_LABEL, CAPACITY_TYPE_LABEL = "expertmesh.io/pool", "expertmesh.io/capacity-type"
SHARED_POOL = "default"


class ExpertShards:
    """One rank. Serve constructs it; it is ready when a token was generated."""

    async def __init__(self, config: GraphConfig, queue: DeploymentHandle[Any] | str) -> None:
        self._config = experts = config.experts
        self._queue = queue
        replica_id, gang = _identity()
        machine = _machine()
        # An empty listen_host means: this node's own address towards the cluster.
        self._host = experts.listen_host or ray.util.get_node_ip_address()
        place = RankPlace(cores=_all_cores(experts))
        if gang is not None and gang.world_size > 1:
            host, port = await _meet(gang.gang_id, gang.rank, self._host)
            cores = split_cores(place.cores, gang.world_size)[gang.rank] if place.cores else ()
            place = RankPlace(gang.rank, gang.world_size, host, port, cores)
        commission = Commission(
            experts.model_dump_json().encode(),
            place,
            replica_id,
            self._host,
            gang.gang_id if gang is not None else "",
            machine.pool,
            machine.node,
            machine.machines,
            machine.capacity_type,
        )
        self._rank: Rank | RemoteRank
        if remote_rank.wanted(experts):
            self._rank = RemoteRank(
                commission, *_fork_server(experts), resolve_queue=self._find_queue, on_lost=self._end_process
            )
        else:
            self._rank = commissioned(commission, self._find_queue, self._end_process)
        self._ending: asyncio.Task[None] | None = None
        ray_sigterm.tell(self._told_to_go)
        await self._rank.start()

    async def endpoint(self) -> tuple[str, bytes]:
        """Address and key of this rank's link. Gateways normally learn both from the queue's grants."""
        return await self._rank.endpoint()

    async def card(self) -> ModelCard:
        """What this rank serves. The same for every rank of the deployment."""
        assert self._rank.info is not None
        return card_of(self._rank.info, self._config)

    async def check_health(self) -> None:
        """Raise EngineLost when tokens do not move."""
        await self._rank.check_health()

    async def drain(self, deadline_s: float) -> None:
        """No new streams; return when the running ones are gone, or were handed back after `deadline_s`."""
        await self._rank.drain(deadline_s)

    async def __del__(self) -> None:
        """Serve awaits this before it ends the replica."""
        rank = getattr(self, "_rank", None)
        if rank is not None:
            await rank.drain(min(self._config.drain_s, max(0.0, _node_leaves_in_s() - HAND_BACK_S)))
            await rank.stop()

    async def _find_queue(self) -> tuple[str, bytes]:
        queue = self._queue
        if isinstance(queue, str):  # the queue of another application, by that one's name
            queue = serve.get_deployment_handle("PriorityQueue", app_name=queue)
        return await queue.endpoint.remote()

    def _end_process(self, because: str) -> None:
        log.error("replica ends itself: %s", because)
        self._ending = asyncio.get_running_loop().create_task(self._end(self._rank.stop))

    def _told_to_go(self) -> None:
        """SIGTERM: what runs here finishes, or moves. Told twice: at once."""
        if self._ending is not None:
            os._exit(1)
        log.warning("SIGTERM: the replica drains, and ends")
        self._ending = asyncio.get_running_loop().create_task(self._end(self.__del__))

    async def _end(self, how: Callable[[], Awaitable[None]]) -> None:
        """Serve sees a dead process at once, and starts another: so it ends, however long or badly the rest goes."""
        try:
            async with asyncio.timeout(drain_rule.graceful_shutdown_timeout_s(self._config)):
                await how()
        finally:
            os._exit(1)


def experts_deployment(config: GraphConfig) -> serve.Deployment:
    """The deployment for these settings; bind it with (config, queue). Touches no cluster."""
    experts = config.experts
    options: dict[str, Any] = {
        "name": "ExpertShards",
        "num_replicas": experts.groups * experts.shards,
        "max_ongoing_requests": 1000,
        "health_check_period_s": 1.0,
        "health_check_timeout_s": 30.0,
        "graceful_shutdown_timeout_s": drain_rule.graceful_shutdown_timeout_s(experts),
        "graceful_shutdown_wait_loop_s": config.gateway.look_s,
        "ray_actor_options": {**_actor_options(experts), "label_selector": config.placement.experts or None},
    }
    if experts.engine == "vllm" and experts.shards > 1:
        options["gang_scheduling_config"] = GangSchedulingConfig(
            gang_size=experts.shards,
            gang_placement_strategy=GangPlacementStrategy.PACK,
            runtime_failure_policy=GangRuntimeFailurePolicy.RESTART_GANG,
        )
    made: Any = serve.deployment(ExpertShards)
    return made.options(**options)


def _node_leaves_in_s() -> float:
    """Seconds until this node's drain ends; infinite where it does not drain, or drains without a deadline."""
    if not ray.is_initialized():
        return math.inf  # Serve's local testing mode
    context = ray.get_runtime_context()
    try:
        ends_ms = GcsClient(context.gcs_address).get_draining_nodes(timeout=1.0).get(context.get_node_id(), 0)
    except RayError as error:
        log.warning("cannot see how long this node stays: %s", error)
        return math.inf
    return ends_ms / 1000 - time.time() if ends_ms else math.inf


def _identity() -> tuple[str, GangContext | None]:
    """This replica's id and gang. Serve's local testing mode has neither."""
    try:
        context = serve.get_replica_context()
    except RayServeException:
        return "", None
    return context.replica_id.unique_id, context.gang_context


class _Machine(NamedTuple):
    """This node as the cloud calls it (bootstrap's label; else Ray's name), and whose engines run on it: those of a
    machine that is reserved for a band are that band's own. `machines` and `capacity_type` find its price."""

    node: str = ""
    pool: str = SHARED_POOL
    machines: str = ""
    capacity_type: str = ""


def _machine() -> _Machine:
    if not ray.is_initialized():
        return _Machine()  # Serve's local testing mode
    context = ray.get_runtime_context()
    labels = context.get_node_labels()
    tier = str(labels.get(TIER_LABEL, ""))
    return _Machine(
        str(labels.get(INSTANCE_LABEL) or context.get_node_id()),
        tier if tier == "vip" else SHARED_POOL,
        str(labels.get(MACHINES_LABEL, "")),
        str(labels.get(CAPACITY_TYPE_LABEL, "")),
    )


def _fork_server(experts: ExpertsConfig) -> tuple[str, int]:
    """The name of this node's fork server, and the process with which one that is started here ends."""
    if not ray.is_initialized():
        return secrets.token_hex(16), os.getpid()  # Serve's local testing mode
    node = hashlib.blake2b(ray.get_runtime_context().get_node_id().encode(), digest_size=12).hexdigest()
    return experts.fork_server or f"expertmesh-ranks-{node}", os.getppid()  # the raylet: gone when Ray is


def _actor_options(experts: ExpertsConfig) -> dict[str, object]:
    resources = bundle(experts)
    options: dict[str, object] = {"num_cpus": resources["CPU"]}
    if "GPU" in resources:
        options["num_gpus"] = resources["GPU"]
    return options


def _all_cores(experts: ExpertsConfig) -> tuple[int, ...]:
    """Cores to pin to: all that this process may use. Several groups share a host unpinned, since none knows of
    the others."""
    if experts.engine == "sim" or experts.device != "cpu" or not experts.pin_cores or experts.groups > 1:
        return ()
    return tuple(sorted(os.sched_getaffinity(0)))


async def _meet(gang_id: str, rank: int, host: str) -> tuple[str, int]:
    """Rank 0's address and a free port of its host, told through Ray's key-value store (as ray.serve.llm does).

    Raises ConfigError when rank 0 does not say within two minutes."""
    key = f"expertmesh:gang:{gang_id}".encode()
    if rank == 0:
        port = free_port(host)
        _internal_kv_put(key, json.dumps([host, port]).encode(), overwrite=True)
        return host, port
    try:
        async with asyncio.timeout(MEET_TIMEOUT_S):
            while (found := cast(bytes | None, _internal_kv_get(key))) is None:  # noqa: ASYNC110  # Ray's store has no events
                await asyncio.sleep(MEET_POLL_S)
    except TimeoutError:
        raise ConfigError(
            f"rank 0 of group {gang_id} did not come up within {MEET_TIMEOUT_S:.0f} s"
        ) from None
    address, port = json.loads(found)
    return address, port
