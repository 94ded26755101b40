"""The contract of `Nodes` and `NoticeQueue`, over every adapter: in memory, and boto3 against a fake AWS.

Without moto (`make infra-test` has it) the boto3 adapters are left out.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import pytest

from services.capacity.memory_nodes import MemoryNodes, MemoryNoticeQueue
from services.capacity.nodes import Bounds, Nodes, NodesError, NoticeQueue, PoolView
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


TOKEN = "87654321-4321-4321-4321-210987654321"


@dataclass(frozen=True, slots=True)
class World:
    """One group of 1 to 4 nodes that runs one, and an empty queue."""

    nodes: Nodes
    queue: NoticeQueue
    send: Any
    group: str

    def view(self) -> PoolView:
        return self.nodes.view((self.group,))[self.group]


@pytest.fixture(scope="module")
def fake_account() -> Iterator[Any]:
    """One fake AWS for all cases (it takes seconds to wake up): gives a world of their own to each."""
    from moto import mock_aws

    from tests.infra.fake_aws import install

    install()
    with pytest.MonkeyPatch.context() as patch, mock_aws():
        patch.delenv("AWS_CA_BUNDLE", raising=False)
        import boto3

        from services.capacity.ec2_nodes import Ec2Nodes
        from services.capacity.sqs_events import SqsNoticeQueue

        ec2, scaling, sqs = (boto3.client(s, region_name=REGION) for s in ("ec2", "autoscaling", "sqs"))
        image = ec2.register_image(Name="node")["ImageId"]
        subnet = ec2.describe_subnets()["Subnets"][0]["SubnetId"]
        ec2.create_launch_template(
            LaunchTemplateName="node", LaunchTemplateData={"ImageId": image, "InstanceType": "m7i.xlarge"}
        )
        nodes, numbers = Ec2Nodes(REGION), count(1)

        def world() -> World:
            group = f"pool-{next(numbers)}"
            scaling.create_auto_scaling_group(
                AutoScalingGroupName=group,
                MinSize=1,
                MaxSize=4,
                DesiredCapacity=1,
                VPCZoneIdentifier=subnet,
                LaunchTemplate={"LaunchTemplateName": "node", "Version": "$Latest"},
                NewInstancesProtectedFromScaleIn=True,
                LifecycleHookSpecificationList=[
                    {
                        "LifecycleHookName": "drain",
                        "LifecycleTransition": "autoscaling:EC2_INSTANCE_TERMINATING",
                    }
                ],
            )
            url = sqs.create_queue(QueueName=group, Attributes={"VisibilityTimeout": "0"})["QueueUrl"]
            queue = SqsNoticeQueue(url, REGION)
            return World(nodes, queue, lambda body: sqs.send_message(QueueUrl=url, MessageBody=body), group)

        yield world


@pytest.fixture(params=ADAPTERS)
def world(request: pytest.FixtureRequest) -> World:
    if request.param == "ec2":
        return request.getfixturevalue("fake_account")()
    nodes, queue = MemoryNodes(), MemoryNoticeQueue()
    nodes.add_group("pool", 1, 4)
    return World(nodes, queue, queue.send, "pool")


def test_groups_are_seen_as_they_are(world: World) -> None:
    views = world.nodes.view((world.group, "absent"))
    assert set(views) == {world.group}
    view = views[world.group]
    assert (view.desired, len(view.serving), view.leaving) == (1, 1, ())
    assert view.bounds == Bounds(1, 4)


def test_a_group_grows_to_the_size_asked(world: World) -> None:
    for _ in range(2):  # asking twice is fine
        world.nodes.set_desired(world.group, 3)
    view = world.view()
    assert view.desired == 3 and len(view.starting) + len(view.serving) == 3


@pytest.mark.parametrize("size", [0, 5])
def test_a_size_outside_the_bounds_is_refused(world: World, size: int) -> None:
    with pytest.raises(NodesError) as refused:
        world.nodes.set_desired(world.group, size)
    assert not refused.value.retryable
    assert world.view().desired == 1


def test_a_group_that_does_not_exist_is_refused(world: World) -> None:
    with pytest.raises(NodesError) as refused:
        world.nodes.set_desired("absent", 3)
    assert not refused.value.retryable


def test_what_cannot_be_asked_at_all_is_not_worth_a_second_try(world: World) -> None:
    with pytest.raises(NodesError) as refused:
        world.nodes.set_desired("", 3)
    assert not refused.value.retryable


def test_termination_lowers_the_size_and_takes_that_node(world: World) -> None:
    world.nodes.set_desired(world.group, 3)
    victim = world.view().serving[1]
    world.nodes.terminate(victim)
    world.nodes.terminate(victim)  # gone already: fine
    view = world.view()
    assert view.desired == 2 and victim not in (*view.serving, *view.starting)


def test_termination_never_goes_below_the_least_size(world: World) -> None:
    (last,) = world.view().serving
    with pytest.raises(NodesError) as refused:
        world.nodes.terminate(last)
    assert not refused.value.retryable
    assert world.view().serving == (last,)


def test_a_hook_may_be_answered_twice_or_be_gone(world: World) -> None:
    instance = world.view().serving[0]
    for name in ("drain", "drain", "no-such-hook"):
        world.nodes.answer_hook(instance, Hook(world.group, name, TOKEN))


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
