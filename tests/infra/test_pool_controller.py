"""The pool controller against the fake AWS: what a queue says becomes sizes of groups and drained, terminated nodes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from services.capacity.controller import Controller
from services.capacity.ec2_nodes import Ec2Nodes
from services.capacity.queue_demand import QueueDemand
from services.clock import VirtualClock
from services.config_capacity import CapacityConfig
from tests.infra.conftest import Cloud
from tests.infra.seed import client

REGION = "us-west-2"  # not that of the installation, which others look at
GROUP, FALLBACK = "sized-spot", "sized-fallback"
CONFIG = CapacityConfig.model_validate(
    {
        "pools": {
            "spot": {
                "asg": GROUP,
                "tier": "spot",
                "max_size": 9,
                "on_demand_percentage": 0,
                "fallback": "fall",
            },
            "fall": {"asg": FALLBACK, "tier": "fallback", "max_size": 9},
        }
    }
)


class Mesh:
    """Drains at once, and remembers who was drained."""

    def __init__(self) -> None:
        self.drained: list[str] = []

    def cordon(self, instance_id: str) -> None:
        """Nothing to do."""

    def migrate(self, instance_id: str, within_s: float) -> None:
        """Nothing to do."""

    def drain(self, instance_id: str, within_s: float | None, preempted: bool) -> None:
        assert within_s is not None and not preempted
        self.drained.append(instance_id)

    def is_empty(self, instance_id: str) -> bool:
        return instance_id in self.drained


@pytest.fixture
def groups(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A spot group of 1 to 4 nodes and its fallback, of 0 to 4: the sizes are AWS's, not those of CONFIG."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "local")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "local")
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    scaling, ec2 = client("autoscaling", cloud.url, REGION), client("ec2", cloud.url, REGION)
    image = ec2.register_image(Name="node")["ImageId"]
    scaling.create_launch_configuration(
        LaunchConfigurationName="node", ImageId=image, InstanceType="t3.micro"
    )
    for name, least in ((GROUP, 1), (FALLBACK, 0)):
        scaling.create_auto_scaling_group(
            AutoScalingGroupName=name, MinSize=least, MaxSize=4, DesiredCapacity=least,
            LaunchConfigurationName="node", AvailabilityZones=[f"{REGION}a"],
            NewInstancesProtectedFromScaleIn=True,
        )  # fmt: skip
    yield scaling
    for name in (GROUP, FALLBACK):
        scaling.delete_auto_scaling_group(AutoScalingGroupName=name, ForceDelete=True)


def test_demand_sizes_the_group_and_its_end_drains_it(groups: Any, cloud: Cloud) -> None:
    def group() -> dict[str, Any]:
        return groups.describe_auto_scaling_groups(AutoScalingGroupNames=[GROUP])["AutoScalingGroups"][0]

    def ids() -> list[str]:
        return [instance["InstanceId"] for instance in group()["Instances"]]

    waiting = 35

    def queue() -> Any:
        band = {
            "name": "standard",
            "waiting": waiting,
            "waiting_tokens": waiting,
            "oldest_age_s": 1.0,
            "running": 0,
        }
        engines = [{"node": node, "up": True, "depth": 10, "kv_tokens": 10_000} for node in ids()]
        return [{"model": "m", "bands": [band], "engines": engines}]

    mesh, clock = Mesh(), VirtualClock()
    demand = QueueDemand(CONFIG, queue, clock)
    controller = Controller(CONFIG, Ec2Nodes(REGION, cloud.url), None, mesh, clock, demand)

    def step(after_s: float = 5.0) -> None:
        clock.advance(after_s)
        controller.step()
        assert not controller.failures and not demand.failure

    step()
    assert group()["DesiredCapacity"] == 4 and demand.wanted == {"spot": 5}, "no more than the group allows"
    oldest = ids()[0]
    waiting = 0
    for _ in range(3):
        step()
    assert group()["DesiredCapacity"] == 4 and not mesh.drained, "nothing shrinks within the hold"
    step(600.0)
    for _ in range(12):
        step()
    assert ids() == [oldest] and group()["DesiredCapacity"] == 1, "never below the group's own minimum"
    assert len(mesh.drained) == 3, "each was drained before it was terminated"
