"""A spot notice that no client sees: a local Ray cluster of several nodes, simulated engines under load, and an
interruption event that goes the way it goes on AWS: queue → controller → `ray drain-node` → Serve → replicas.

The machine is taken when it is empty, and at the end of its notice in any case: 120 s, 30 s, 10 s, and no notice at
all. Streams of every kind run all the while; each must come to its end with every token right.

Then the other way: the queue's demand brings a machine, on which an engine that waited for one starts, and the end of
the demand takes it away again, by drain.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
import ray
from ray import serve
from ray._private.state import actors
from ray.cluster_utils import Cluster
from ray.serve import RunTarget

from graphs.profiles import SimOptions, sim_config
from graphs.topology import mesh
from services.capacity.controller import Controller
from services.capacity.deployment import INSTANCE_LABEL, AskQueue, RayMesh, capacity_deployment
from services.capacity.memory_nodes import MemoryNoticeQueue
from services.capacity.nodes import PoolView
from services.capacity.notices import NOTICE_LIFE_S, Hook
from services.capacity.queue_demand import QueueDemand
from services.capacity.ray_drain import RayDrain
from services.clock import SystemClock
from services.config import CapacityConfig, PlacementConfig
from services.experts.deployment import experts_deployment
from services.gateway import json_key_store
from services.gateway.identity import Permission
from services.ports import free_port
from tests.cluster.fleet.test_chaos import KINDS, stream
from tests.cluster.stack import wait_for

pytestmark = pytest.mark.cluster
T = TypeVar("T")

KEY = "em-a-key-of-the-drain-tests"
HEAD, SPOT = {"expertmesh.io/tier": "head"}, {"expertmesh.io/tier": "spot"}
ENGINES = 2
LANES = 10
BUSY_LANES = 32
SPOT_POOL = {"asg": "spot", "tier": "spot", "min_size": ENGINES, "max_size": 8, "on_demand_percentage": 0}


def patiently(start: Callable[[], T]) -> T:
    """Ray gives its own processes 30 s to come up; a crowded machine may need more."""
    for _ in range(2):
        try:
            return start()
        except Exception as error:  # a bare one
            if "timed out during startup" not in str(error):
                raise
    return start()


class Machines:
    """The `Nodes` port over raylets on this host: one group of spot machines."""

    def __init__(self) -> None:
        small: dict[str, Any] = {
            "num_cpus": 1,
            "object_store_memory": 80 * 2**20,
            "include_dashboard": False,
        }
        self._small = small
        head = {**small, "labels": HEAD}
        self.cluster = patiently(lambda: Cluster(initialize_head=True, head_node_args=head))
        self._nodes: dict[str, Any] = {}
        self._numbers = count(1)

    def launch(self) -> str:
        instance_id = f"i-{next(self._numbers):017x}"
        labels = {**SPOT, INSTANCE_LABEL: instance_id}
        self._nodes[instance_id] = patiently(lambda: self.cluster.add_node(**self._small, labels=labels))
        return instance_id

    def take(self, instance_id: str) -> None:
        """As the cloud does: every process of the machine at once, without a word."""
        going = {n["NodeID"] for n in ray.nodes() if n["Labels"].get(INSTANCE_LABEL) == instance_id}
        for actor in actors(actor_state_name="ALIVE").values():
            if actor["Address"]["NodeID"] in going:  # else it would linger until it misses its raylet
                os.kill(actor["Pid"], signal.SIGKILL)
        self.cluster.remove_node(self._nodes.pop(instance_id), allow_graceful=False)

    def view(self, asgs: tuple[str, ...]) -> dict[str, PoolView]:
        return {asg: PoolView(asg, len(self._nodes), serving=tuple(self._nodes)) for asg in asgs}

    def set_desired(self, asg: str, size: int) -> None:
        while len(self._nodes) < size:
            self.launch()

    def answer_hook(self, instance_id: str, hook: Hook) -> None: ...

    def terminate(self, instance_id: str) -> None:
        if instance_id in self._nodes:
            self.take(instance_id)


class Site:
    """The mesh on its machines, and the controller beside it."""

    def __init__(self, folder: Path) -> None:
        self.machines = Machines()
        ray.init(address=self.machines.cluster.address, namespace="serve", log_to_driver=False)
        self.machines.launch(), self.machines.launch()
        keys_file = folder / "keys.json"
        rights = (Permission.GENERATE, Permission.METRICS)
        json_key_store.add(keys_file, KEY, key_id="test", tenant="test", permissions=rights)
        options = SimOptions(
            http_port=free_port(), grpc_port=free_port(), redis_url="", keys_file=str(keys_file), engines=ENGINES,
            request_log="",
        )  # fmt: skip
        placement = PlacementConfig(gateway=HEAD, control=HEAD, experts=SPOT)
        self.config = sim_config(options).model_copy(update={"placement": placement})
        serve.start(proxy_location="Disabled")
        serve.run(mesh(self.config), name="default")
        self.url = f"http://127.0.0.1:{options.http_port}"
        wait_for(self._ready, "GET /readyz", 60)
        self.mesh = RayMesh(RayDrain(self.machines.cluster.address, {}))
        self.queue = MemoryNoticeQueue()
        config = CapacityConfig.model_validate({"pools": {"spot": {**SPOT_POOL, "min_size": 0}}})
        self.controller = Controller(
            config, self.machines, self.queue, self.mesh, SystemClock(), lambda pools, views: {}
        )

    def engines_on(self) -> list[str]:
        """The machine of each running engine."""
        machine = {n["NodeID"]: n["Labels"].get(INSTANCE_LABEL, "head") for n in ray.nodes() if n["Alive"]}
        alive = actors(actor_state_name="ALIVE").values()
        nodes = (a["Address"]["NodeID"] for a in alive if "ExpertShards" in a["ActorClassName"])
        return sorted(machine[node] for node in nodes if node in machine)

    def notify(self, instance_id: str, left_s: float) -> None:
        """EventBridge's event about a machine that has so many seconds left."""
        said = datetime.now(UTC) - timedelta(seconds=NOTICE_LIFE_S - left_s)
        event = {
            "source": "aws.ec2",
            "detail-type": "EC2 Spot Instance Interruption Warning",
            "time": said.isoformat(),
            "detail": {"instance-id": instance_id, "instance-action": "terminate"},
        }
        self.queue.send(json.dumps(event))

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=5) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def end(self) -> None:
        serve.shutdown()
        ray.shutdown()
        self.machines.cluster.shutdown()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("site"))
    yield made
    made.end()


async def interrupt(site: Site, victim: str, notice_s: float) -> float:
    """Tell, drain, take. Returns the seconds after which the machine was empty, or the notice's length."""
    began_s = time.monotonic()
    site.notify(victim, notice_s)
    gone = asyncio.Event()

    async def control() -> None:
        while not gone.is_set():
            await asyncio.to_thread(site.controller.step)
            await asyncio.sleep(0.1)

    controlling = asyncio.create_task(control())
    while (since_s := time.monotonic() - began_s) < notice_s and not site.mesh.is_empty(victim):
        await asyncio.sleep(0.2)
    site.machines.take(victim)
    gone.set()
    await controlling
    async with asyncio.timeout(90):  # the replacement; with a long notice it is there already
        while len([machine for machine in site.engines_on() if machine != victim]) < ENGINES:
            await asyncio.sleep(0.1)
    return min(since_s, notice_s)


@pytest.mark.parametrize("notice_s", [120.0, 30.0, 10.0, 0.0])
def test_no_stream_notices(site: Site, notice_s: float) -> None:
    """Spare capacity is there beforehand, as Auto Scaling's rebalance brings it; a machine with an engine goes."""
    site.machines.launch()
    victim = site.engines_on()[0]
    gaps_s: list[float] = []

    async def main() -> tuple[float, int]:
        headers = {"authorization": f"Bearer {KEY}", "cache-control": "no-store"}
        limits = httpx.Limits(max_connections=LANES)
        numbers = count(int(notice_s) * 1000)
        done = 0
        async with httpx.AsyncClient(
            base_url=site.url, headers=headers, limits=limits, timeout=120
        ) as client:

            async def lane(kind: str) -> None:
                nonlocal done
                while not going.done():
                    await stream(client, kind, next(numbers), gaps_s)
                    done += 1

            async def go() -> float:
                await asyncio.sleep(1.0)  # every lane has tokens on the line
                return await interrupt(site, victim, notice_s)

            going = asyncio.create_task(go())
            await asyncio.gather(*(lane(KINDS[number % len(KINDS)]) for number in range(LANES)))
            return await going, done

    empty_s, streams = asyncio.run(main())
    assert streams >= LANES
    assert victim not in site.engines_on() and len(site.engines_on()) == ENGINES
    if notice_s >= 30.0:
        assert empty_s < notice_s, "the machine was empty before the cloud took it"
    print(
        f"notice {notice_s:.0f} s: {streams} streams, 0 failed, machine gone after {empty_s:.1f} s, "
        f"longest gap {max(gaps_s) * 1e3:.0f} ms"
    )


def test_demand_brings_a_machine_and_its_end_takes_it(site: Site) -> None:
    """The real queue is asked over its handle. More engines than machines: the rest waits for the pool to grow. A
    twentieth of what an engine holds (128 streams or more) is enough here to want another machine."""
    spare = site.config.experts.model_copy(update={"drain_s": 1.0, "groups": 1})
    config = site.config.model_copy(update={"experts": spare})
    more = RunTarget(experts_deployment(config).bind(config, "default"), name="more", route_prefix="/more")
    serve.run_many([more], wait_for_applications_running=False)
    policy = CapacityConfig.model_validate(
        {
            "pools": {"spot": {**SPOT_POOL, "max_size": ENGINES + 1}},
            "scale": {
                "target_load": 0.05,
                "scale_out_hold_s": 0.5,
                "scale_in_hold_s": 3.0,
                "room_memory_s": 1.0,
            },
            "drain": {"drain_seconds": 20, "graceful_shutdown_timeout_s": 11, "replica_start_s": 8},
        }
    )
    demand = QueueDemand(policy, AskQueue("default"), SystemClock())
    controller = Controller(policy, site.machines, None, site.mesh, SystemClock(), demand)
    before, gaps_s, steps = set(site.machines.view(("spot",))["spot"].serving), list[float](), list[str]()
    lanes = BUSY_LANES

    async def traffic() -> int:
        headers = {"authorization": f"Bearer {KEY}", "cache-control": "no-store"}
        limits = httpx.Limits(max_connections=BUSY_LANES)
        numbers, done = count(200_000), 0

        async with httpx.AsyncClient(
            base_url=site.url, headers=headers, limits=limits, timeout=120
        ) as client:

            async def lane(place: int) -> None:
                nonlocal done
                while place < lanes:
                    await stream(client, "plain", next(numbers), gaps_s)
                    done += 1

            await asyncio.gather(*(lane(place) for place in range(BUSY_LANES)))
        return done

    def until(there: Callable[[], bool], what: str) -> None:
        """The controller goes round here, in the main thread: Ray starts a node in no other."""
        began_s = time.monotonic()

        def moved() -> bool:
            assert not asked.done(), asked.result()
            controller.step()
            return there()

        wait_for(moved, what, 90)
        steps.append(f"{what} after {time.monotonic() - began_s:.1f} s")

    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(lambda: asyncio.run(traffic()))
        try:
            until(lambda: len(site.engines_on()) > ENGINES, "one engine more")
            assert set(site.machines.view(("spot",))["spot"].serving) > before
            lanes = 2
            until(lambda: set(site.machines.view(("spot",))["spot"].serving) == before, "one machine less")
        finally:
            lanes = 0
        streams = asked.result()
    serve.delete("more")
    assert len(site.engines_on()) == ENGINES
    print(f"{streams} streams, 0 failed, {'; '.join(steps)}")


def test_the_controller_runs_as_an_application(site: Site) -> None:
    """`graphs.capacity` beside the mesh, on the head, over machines in memory."""
    config = CapacityConfig.model_validate({"pools": {"spot": SPOT_POOL}, "period_s": 0.2})
    handle = serve.run(capacity_deployment(config), name="capacity", route_prefix="/capacity")
    status: dict[str, Any] = {}

    def asked() -> bool:
        status.update(handle.status.remote().result(timeout_s=10))
        return "wanted" in status["pools"].get("spot", {})

    wait_for(lambda: asked() and not status["failures"], "an answer of the queue", 30)
    assert status["pools"]["spot"]["desired"] == ENGINES
    handle.want.remote({"spot": 3}).result(timeout_s=10)
    wait_for(lambda: asked() and status["pools"]["spot"]["desired"] == 3, "the operator's minimum", 30)
    serve.delete("capacity")
