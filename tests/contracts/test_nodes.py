"""The contract of `Nodes` and `NoticeQueue`, over every adapter: in memory, and boto3 against a fake AWS.

Without moto (`make infra-test` has it) the boto3 adapters are left out.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from services.capacity.memory_nodes import MemoryNodes, MemoryNoticeQueue
from services.capacity.nodes import Nodes, NodesError, NoticeQueue
from services.capacity.notices import Hook, Signal

ADAPTERS = ["memory"] + (
    ["ec2"] if importlib.util.find_spec("moto") and importlib.util.find_spec("boto3") else []
)
REGION = "eu-central-1"
EVENT = json.dumps(
    {
        "source": "aws.ec2",
        "detail-type": "EC2 Spot Instance Interruption Warning",
        "time": "2026-10-21T12:00:00Z",
        "detail": {"instance-id": "i-0123456789abcdef0", "instance-action": "terminate"},
    }
)


@dataclass(frozen=True, slots=True)
class World:
    nodes: Nodes
    queue: NoticeQueue
    send: Any


def _ec2_world() -> Iterator[World]:
    from moto import mock_aws

    from tests.infra.fake_aws import install

    install()
    with mock_aws():
        import boto3

        from services.capacity.ec2_nodes import Ec2Nodes
        from services.capacity.sqs_events import SqsNoticeQueue

        ec2, scaling, sqs = (boto3.client(s, region_name=REGION) for s in ("ec2", "autoscaling", "sqs"))
        image = ec2.describe_images()["Images"][0]["ImageId"]
        subnet = ec2.describe_subnets()["Subnets"][0]["SubnetId"]
        ec2.create_launch_template(
            LaunchTemplateName="node", LaunchTemplateData={"ImageId": image, "InstanceType": "m7i.xlarge"}
        )
        scaling.create_auto_scaling_group(
            AutoScalingGroupName="pool",
            MinSize=1,
            MaxSize=4,
            DesiredCapacity=1,
            VPCZoneIdentifier=subnet,
            LaunchTemplate={"LaunchTemplateName": "node", "Version": "$Latest"},
            NewInstancesProtectedFromScaleIn=True,
            LifecycleHookSpecificationList=[
                {"LifecycleHookName": "drain", "LifecycleTransition": "autoscaling:EC2_INSTANCE_TERMINATING"}
            ],
        )
        url = sqs.create_queue(QueueName="events", Attributes={"VisibilityTimeout": "0"})["QueueUrl"]
        yield World(
            Ec2Nodes(REGION),
            SqsNoticeQueue(url, REGION),
            lambda body: sqs.send_message(QueueUrl=url, MessageBody=body),
        )


@pytest.fixture(params=ADAPTERS)
def world(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    if request.param == "memory":
        nodes, queue = MemoryNodes(), MemoryNoticeQueue()
        nodes.add_group("pool", 1, 4)
        yield World(nodes, queue, queue.send)
        return
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    yield from _ec2_world()


def test_groups_are_seen_as_they_are(world: World) -> None:
    views = world.nodes.view(("pool", "absent"))
    assert set(views) == {"pool"}
    assert (views["pool"].desired, len(views["pool"].serving), views["pool"].leaving) == (1, 1, ())


def test_a_group_grows_to_the_size_asked(world: World) -> None:
    for _ in range(2):  # asking twice is fine
        world.nodes.set_desired("pool", 3)
    view = world.nodes.view(("pool",))["pool"]
    assert view.desired == 3 and len(view.starting) + len(view.serving) == 3


def test_a_size_outside_the_bounds_is_refused(world: World) -> None:
    with pytest.raises(NodesError) as refused:
        world.nodes.set_desired("absent", 3)
    assert not refused.value.retryable


def test_termination_lowers_the_size_and_takes_that_node(world: World) -> None:
    world.nodes.set_desired("pool", 3)
    victim = world.nodes.view(("pool",))["pool"].serving[1]
    world.nodes.terminate(victim)
    world.nodes.terminate(victim)  # gone already: fine
    view = world.nodes.view(("pool",))["pool"]
    assert view.desired == 2 and victim not in (*view.serving, *view.starting)


def test_a_hook_may_be_answered_twice_or_be_gone(world: World) -> None:
    instance = world.nodes.view(("pool",))["pool"].serving[0]
    for name in ("drain", "drain", "no-such-hook"):
        world.nodes.answer_hook(instance, Hook("pool", name, "token"))


def test_notices_come_until_they_are_acknowledged(world: World) -> None:
    world.send(EVENT)
    for _ in range(2):
        received = world.queue.receive(0)
        assert [r.notice.signal for r in received if r.notice] == [Signal.INTERRUPTION]
    world.queue.acknowledge(received[0].receipt)
    assert world.queue.receive(0) == ()


def test_what_nobody_understands_is_handed_out_to_be_forgotten(world: World) -> None:
    world.send("nonsense")
    (received,) = world.queue.receive(0)
    assert received.notice is None
    world.queue.acknowledge(received.receipt)
    assert world.queue.receive(0) == ()
