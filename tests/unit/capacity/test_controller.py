"""The control loop over fakes: notices to farewell, retries, redelivery."""

from __future__ import annotations

import json
from collections.abc import Mapping

from services.capacity.controller import Controller, MeshDrainError
from services.capacity.memory_nodes import MemoryNodes, MemoryNoticeQueue
from services.clock import VirtualClock
from services.config_capacity import CapacityConfig


class FakeMesh:
    """Remembers what it was asked; may refuse, and is empty when told."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str, float | None]] = []
        self.refuse, self.empty = False, set[str]()

    def cordon(self, instance_id: str) -> None:
        self.said.append(("cordon", instance_id, None))

    def migrate(self, instance_id: str, within_s: float) -> None:
        self.said.append(("migrate", instance_id, within_s))

    def drain(self, instance_id: str, within_s: float | None, preempted: bool) -> None:
        if self.refuse:
            raise MeshDrainError("not now")
        self.said.append(("drain", instance_id, within_s))

    def is_empty(self, instance_id: str) -> bool:
        return instance_id in self.empty


class World:
    def __init__(self, demand: Mapping[str, int]) -> None:
        self.config = CapacityConfig.model_validate(
            {
                "pools": {
                    "spot": {
                        "asg": "s",
                        "tier": "spot",
                        "min_size": 0,
                        "max_size": 6,
                        "on_demand_percentage": 0,
                        "fallback": "fall",
                    },
                    "fall": {"asg": "f", "tier": "fallback", "min_size": 0, "max_size": 6},
                }
            }
        )
        self.nodes, self.queue, self.mesh, self.clock = (
            MemoryNodes(),
            MemoryNoticeQueue(),
            FakeMesh(),
            VirtualClock(),
        )
        self.nodes.add_group("s", 0, 6)
        self.nodes.add_group("f", 0, 6)
        self.demand = dict(demand)
        self.controller = Controller(
            self.config, self.nodes, self.queue, self.mesh, self.clock, lambda pools, views: self.demand
        )

    def step(self, after_s: float = 5.0) -> None:
        self.clock.advance(after_s)
        self.controller.step()

    def spot(self) -> tuple[str, ...]:
        return self.nodes.view(("s",))["s"].serving

    def tell(self, kind: str, source: str, **detail: str) -> None:
        at = "2023-11-14T22:13:20+00:00"  # the virtual clock's wall at its start
        self.queue.send(json.dumps({"source": source, "detail-type": kind, "time": at, "detail": detail}))


def test_demand_becomes_nodes() -> None:
    world = World({"spot": 3})
    world.step()
    assert len(world.spot()) == 3


def test_a_notice_drains_once_and_is_forgotten_with_the_machine() -> None:
    world = World({"spot": 2})
    world.step()
    victim = world.spot()[0]
    for _ in range(2):
        world.tell("EC2 Spot Instance Interruption Warning", "aws.ec2", **{"instance-id": victim})
    world.step()
    assert world.mesh.said == [("cordon", victim, None), ("migrate", victim, 100.0), ("drain", victim, 100.0)]
    assert world.queue.receive(0) == ()
    world.nodes.lose(victim)
    world.step()
    assert victim not in world.controller.state.nodes and len(world.spot()) >= 2


def test_a_drain_that_the_mesh_refuses_is_tried_again() -> None:
    world = World({"spot": 1})
    world.step()
    victim = world.spot()[0]
    world.mesh.refuse = True
    world.tell("EC2 Spot Instance Interruption Warning", "aws.ec2", **{"instance-id": victim})
    world.step()
    assert any("not now" in failure for failure in world.controller.failures)
    world.mesh.refuse = False
    world.step()
    assert ("drain", victim, 100.0) in world.mesh.said and not world.controller.failures


def test_what_a_lost_machine_could_not_take_is_given_up() -> None:
    world = World({"spot": 1})
    world.step()
    victim = world.spot()[0]
    world.mesh.refuse = True
    world.tell("EC2 Spot Instance Interruption Warning", "aws.ec2", **{"instance-id": victim})
    world.step()
    world.step(2.0)
    assert world.controller.failures
    world.nodes.lose(victim)
    world.step(2.0)
    world.step()
    assert not world.controller.failures and victim not in world.controller.state.nodes


def test_a_terminating_node_keeps_auto_scaling_waiting_until_it_is_empty() -> None:
    world = World({"spot": 1})
    world.step()
    victim = world.spot()[0]
    world.tell(
        "EC2 Instance-terminate Lifecycle Action",
        "aws.autoscaling",
        EC2InstanceId=victim,
        AutoScalingGroupName="s",
        LifecycleHookName="drain",
        LifecycleActionToken="87654321-4321-4321-4321-210987654321",
    )
    world.step()
    assert world.nodes.answered == []
    world.mesh.empty.add(victim)
    world.step()
    world.step()
    assert [i for i, _ in world.nodes.answered] == [victim]


def test_less_demand_drains_then_terminates() -> None:
    world = World({"spot": 3})
    world.step()
    world.demand = {"spot": 2}
    world.step()
    world.step(600.0)
    (victim,) = [i for what, i, _ in world.mesh.said if what == "drain"]
    assert victim in world.spot()
    world.mesh.empty.add(victim)
    world.step()
    assert victim not in world.spot() and len(world.spot()) == 2


def test_the_groups_own_bounds_rule() -> None:
    world = World({"spot": 9})
    world.step()
    assert len(world.spot()) == 6
    world.nodes.add_group("s", 0, 8)  # an operator raised the size of the group, and told nobody
    world.step()
    assert len(world.spot()) == 8


def test_a_rebalance_waits_for_another_node() -> None:
    world = World({"spot": 2})
    world.step()
    victim = world.spot()[0]
    world.tell("EC2 Instance Rebalance Recommendation", "aws.ec2", **{"instance-id": victim})
    world.step()
    assert world.mesh.said == []
    world.nodes.set_desired("s", 3)  # Auto Scaling's capacity rebalance
    world.step()
    assert ("drain", victim, None) in world.mesh.said


def test_a_rebalance_of_a_machine_that_no_pool_has_is_forgotten() -> None:
    world = World({"spot": 1})
    world.tell("EC2 Instance Rebalance Recommendation", "aws.ec2", **{"instance-id": "i-elsewhere"})
    world.step()
    world.step()
    assert not world.controller.failures and "i-elsewhere" not in world.controller.state.nodes
    assert len(world.spot()) == 1


def test_nonsense_in_the_queue_is_forgotten() -> None:
    world = World({})
    world.queue.send("nonsense")
    world.step()
    assert world.queue.receive(0) == () and not world.controller.failures
