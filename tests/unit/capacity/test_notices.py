"""Reading AWS's messages: the four signals, and everything that is not one."""

from __future__ import annotations

import json

import pytest

from services.capacity.notices import (
    BadNotice,
    Hook,
    Notice,
    Signal,
    parse_event,
    parse_instance_action,
    parse_rebalance,
)

I = "i-0123456789abcdef0"  # noqa: E741
NOON_S = 1_792_584_000.0  # 2026-10-21T12:00:00Z


def event(source: str, kind: str, **detail: object) -> str:
    return json.dumps(
        {"source": source, "detail-type": kind, "time": "2026-10-21T12:00:00Z", "detail": detail}
    )


def test_metadata_says_when_the_machine_goes() -> None:
    notice = parse_instance_action(b'{"action": "terminate", "time": "2026-10-21T12:02:00Z"}', I)
    assert notice == Notice(Signal.INTERRUPTION, I, NOON_S + 120)
    assert notice.remaining_s(NOON_S + 30) == 90
    assert notice.remaining_s(NOON_S + 500) == 0


@pytest.mark.parametrize("action", ["stop", "hibernate"])
def test_stop_and_hibernate_end_our_work_too(action: str) -> None:
    body = json.dumps({"action": action, "time": "2026-10-21T12:02:00Z"}).encode()
    assert parse_instance_action(body, I).signal is Signal.INTERRUPTION


def test_a_rebalance_has_no_deadline() -> None:
    assert parse_rebalance(b'{"noticeTime": "2026-10-21T12:00:00Z"}', I) == Notice(Signal.REBALANCE, I)


def test_the_queue_says_the_same_as_the_metadata() -> None:
    told = parse_event(
        event(
            "aws.ec2",
            "EC2 Spot Instance Interruption Warning",
            **{"instance-id": I, "instance-action": "terminate"},
        )
    )
    seen = parse_instance_action(b'{"action": "terminate", "time": "2026-10-21T12:02:00Z"}', I)
    assert told == seen


@pytest.mark.parametrize(
    ("kind", "signal"), [("launch", Signal.LAUNCHING), ("terminate", Signal.TERMINATING)]
)
def test_lifecycle_actions_carry_their_hook(kind: str, signal: Signal) -> None:
    notice = parse_event(
        event(
            "aws.autoscaling",
            f"EC2 Instance-{kind} Lifecycle Action",
            EC2InstanceId=I,
            AutoScalingGroupName="g",
            LifecycleHookName="h",
            LifecycleActionToken="87654321-4321-4321-4321-210987654321",
        )
    )
    assert notice == Notice(signal, I, None, Hook("g", "h", "87654321-4321-4321-4321-210987654321"))


@pytest.mark.parametrize(
    "body",
    [
        event("aws.s3", "Object Created"),
        event("aws.ec2", "EC2 Instance State-change Notification", **{"instance-id": I}),
        "{}",
    ],
)
def test_other_events_are_none_of_ours(body: str) -> None:
    assert parse_event(body) is None


@pytest.mark.parametrize(
    "body",
    [
        "",
        "[]",
        "null",
        "nonsense",
        '{"source": ',
        "[" * 100_000,
        " " * 300_000,
        event("aws.ec2", "EC2 Spot Instance Interruption Warning"),
        event("aws.ec2", "EC2 Instance Rebalance Recommendation", **{"instance-id": "../../etc"}),
        event("aws.autoscaling", "EC2 Instance-terminate Lifecycle Action", EC2InstanceId=I),
        event(
            "aws.autoscaling",
            "EC2 Instance-terminate Lifecycle Action",
            EC2InstanceId=I,
            AutoScalingGroupName="g",
            LifecycleHookName="h",
            LifecycleActionToken="too-short-for-the-api",
        ),
        json.dumps(
            {
                "source": "aws.ec2",
                "detail-type": "EC2 Spot Instance Interruption Warning",
                "time": "soon",
                "detail": {"instance-id": I},
            }
        ),
        json.dumps(
            {
                "source": "aws.ec2",
                "detail-type": "EC2 Spot Instance Interruption Warning",
                "time": "2026-10-21T12:00:00",
                "detail": {"instance-id": I},
            }
        ),
    ],
)
def test_broken_messages_are_refused_in_one_way(body: str) -> None:
    with pytest.raises(BadNotice):
        parse_event(body)


def test_an_unknown_action_is_refused() -> None:
    with pytest.raises(BadNotice):
        parse_instance_action(b'{"action": "dance", "time": "2026-10-21T12:02:00Z"}', I)
