"""A notice's way through AWS as applied: EventBridge → the rule made by Terraform → SQS → our reader → the controller.

Comes before test_fake_aws.py, whose last test takes everything down.
"""

from __future__ import annotations

import json
import time

import pytest

from services.capacity.controller import Controller
from services.capacity.ec2_nodes import Ec2Nodes
from services.capacity.sqs_events import SqsNoticeQueue
from services.clock import VirtualClock
from services.config_capacity import CapacityConfig
from tests.infra.conftest import REGION, Cloud
from tests.infra.seed import client
from tests.infra.terraform import Terraform

NAME = "expertmesh-local"


class Mesh:
    """Remembers what it was asked."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def cordon(self, instance_id: str) -> None:
        self.said.append("cordon")

    def migrate(self, instance_id: str, within_s: float) -> None:
        self.said.append("migrate")

    def drain(self, instance_id: str, within_s: float | None, preempted: bool) -> None:
        self.said.append("drain")

    def is_empty(self, instance_id: str) -> bool:
        return False


@pytest.mark.parametrize(
    ("detail_type", "source", "detail"),
    [
        (
            "EC2 Spot Instance Interruption Warning",
            "aws.ec2",
            {"instance-id": "i-0123456789abcdef0", "instance-action": "terminate"},
        ),
        ("EC2 Instance Rebalance Recommendation", "aws.ec2", {"instance-id": "i-0123456789abcdef0"}),
        (
            "EC2 Instance-terminate Lifecycle Action",
            "aws.autoscaling",
            {
                "AutoScalingGroupName": f"{NAME}-gpu-spot",
                "LifecycleHookName": "drain",
                "LifecycleActionToken": "87654321-4321-4321-4321-210987654321",
                "EC2InstanceId": "i-0123456789abcdef0",
            },
        ),
    ],
    ids=["interruption", "rebalance", "terminating"],
)
def test_events_reach_the_watcher(
    applied: Terraform,
    cloud: Cloud,
    monkeypatch: pytest.MonkeyPatch,
    detail_type: str,
    source: str,
    detail: dict[str, str],
) -> None:
    """EventBridge → the rule made by Terraform → SQS → our reader → the controller, which drains."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "local")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "local")
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    events = client("events", cloud.url, REGION)
    url = applied.json("output", "-json")["node_events_queue_url"]["value"]
    queue = SqsNoticeQueue(url, REGION, cloud.url)
    for received in queue.receive(0):
        queue.acknowledge(received.receipt)  # Auto Scaling's own events of the apply
    events.put_events(Entries=[{"Source": source, "DetailType": detail_type, "Detail": json.dumps(detail)}])
    received = queue.receive(5)
    assert [r.notice.instance_id for r in received if r.notice] == ["i-0123456789abcdef0"]
    for message in received:
        queue.acknowledge(message.receipt)
    assert queue.receive(0) == ()
    events.put_events(Entries=[{"Source": source, "DetailType": detail_type, "Detail": json.dumps(detail)}])
    mesh = Mesh()
    config = CapacityConfig.model_validate({"pools": {"spot": {"asg": "absent", "tier": "fallback"}}})
    clock = VirtualClock(wall_offset_s=time.time())  # a machine that stays unknown for a second is forgotten
    controller = Controller(config, Ec2Nodes(REGION, cloud.url), queue, mesh, clock, lambda *_: {})
    controller.step(wait_s=5)
    assert not controller.failures and queue.receive(0) == ()
    # A rebalance waits for another node; the two others act at once.
    assert mesh.said == ([] if "Rebalance" in detail_type else ["cordon", "migrate", "drain"])
    assert list(controller.state.nodes) == ["i-0123456789abcdef0"]
