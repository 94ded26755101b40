"""The contract of `ray drain-node`, against a real cluster of two nodes: what ray_drain.py relies on in Ray 2.60.

1. A node that is drained takes no new work, and what runs there goes on.
2. Draining twice is fine.
3. An unknown node is refused, and the refusal is one DrainRefused.
4. Ray's other reason, idle termination, is refused while something runs: hence "preemption" in every drain of ours.
5. A drained node on which nothing runs any more ends by itself.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from services.capacity.ray_drain import DrainRefused, RayDrain
from tests.cluster.stack import wait_for

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.cluster

LABEL = "expertmesh.io/instance-id"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A head without CPUs and two workers with one each, in this process's care alone."""
    from ray.cluster_utils import Cluster

    small: dict[str, Any] = {
        "object_store_memory": 80 * 2**20,
        "include_dashboard": False,
    }
    made = Cluster(initialize_head=True, head_node_args={**small, "num_cpus": 0})
    for number in (1, 2):
        made.add_node(**small, num_cpus=1, labels={LABEL: f"i-{number:017x}"})
    ray.init(address=made.address)
    yield made
    ray.shutdown()
    made.shutdown()


def node_id(instance_id: str) -> str:
    return next(n["NodeID"] for n in ray.nodes() if n["Labels"].get(LABEL) == instance_id)


def test_a_drained_node_takes_no_new_work(cluster: Any) -> None:
    @ray.remote(num_cpus=1, max_restarts=0)
    class Worker:
        def where(self) -> str:
            return str(ray.get_runtime_context().get_node_id())

    going = node_id("i-00000000000000001")
    here = [Worker.remote(), Worker.remote()]
    places = ray.get([w.where.remote() for w in here], timeout=60)
    assert len(set(places)) == 2
    drain = RayDrain(cluster.address, {})
    words = [word.replace("PREEMPTION", "IDLE_TERMINATION") for word in drain.command(going, 60.0, "idle?")]
    refused = subprocess.run(words, capture_output=True, text=True, check=False)
    assert refused.returncode != 0 and "no longer idle" in refused.stdout + refused.stderr
    drain.drain(going, 60.0, why="contract test")
    assert sorted(ray.get([w.where.remote() for w in here], timeout=60)) == sorted(places), (
        "what runs goes on"
    )
    leaving, staying = sorted(here, key=lambda w: places[here.index(w)] != going)
    drain.drain(going, 30.0, why="said twice")
    ray.kill(leaving)
    late = Worker.remote()
    with pytest.raises(ray.exceptions.GetTimeoutError):
        ray.get(late.where.remote(), timeout=4)  # one node is full, the other drains
    ray.kill(staying)
    assert ray.get(late.where.remote(), timeout=60) == node_id("i-00000000000000002")
    wait_for(lambda: going not in {n["NodeID"] for n in ray.nodes() if n["Alive"]}, "the drained node's end")


def test_an_unknown_node_is_refused(cluster: Any) -> None:
    with pytest.raises(DrainRefused):
        RayDrain(cluster.address, {}).drain("zz", 30.0, why="contract test")
