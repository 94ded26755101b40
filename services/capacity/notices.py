"""What AWS says about a node, in one meaning, whichever way it came (pure).

Belongs here: the four signals and how to read them from the metadata service and from EventBridge events.
Must not know: sockets, boto3, what is done about a notice (`drain`).

Hostile or broken input never raises past `parse_*`: it is `None` (nothing is due) or `BadNotice`.
Sources: EC2 user guide, "Spot Instance interruption notices", "rebalance recommendations"; EC2 Auto Scaling,
"EventBridge event reference" (lifecycle actions).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, cast

MAX_BODY_BYTES = 262_144  # SQS carries no more
NOTICE_LIFE_S = 120.0  # an interruption warning comes this long before the end
_INSTANCE = re.compile(r"^i-[0-9a-f]{8,17}$")
_TOKEN_CHARS = 36  # a UUID; the API takes no other length


class Signal(StrEnum):
    INTERRUPTION = "interruption"  # the machine goes within two minutes
    REBALANCE = "rebalance"  # the machine may go; no deadline
    LAUNCHING = "launching"  # Auto Scaling waits for a node to join
    TERMINATING = "terminating"  # Auto Scaling waits for a node to drain


class BadNotice(ValueError):
    """The message is not one of AWS's; it can be dropped."""


@dataclass(frozen=True, slots=True)
class Hook:
    """A lifecycle action that waits for an answer."""

    asg: str
    name: str
    token: str


@dataclass(frozen=True, slots=True)
class Notice:
    """One signal about one instance. `ends_wall_s`: Unix seconds when the machine goes, or None."""

    signal: Signal
    instance_id: str
    ends_wall_s: float | None = None
    hook: Hook | None = None

    def remaining_s(self, wall_s: float) -> float | None:
        """Seconds left (never negative) as the clock on the wall says `wall_s`; None without a deadline."""
        return None if self.ends_wall_s is None else max(0.0, self.ends_wall_s - wall_s)


def parse_instance_action(body: bytes, instance_id: str) -> Notice:
    """`spot/instance-action` of the metadata service. Stop and hibernate end our work as terminate does."""
    said = _object(body)
    if said.get("action") not in ("terminate", "stop", "hibernate"):
        raise BadNotice(f"unknown action {said.get('action')!r}")
    return Notice(Signal.INTERRUPTION, _instance(instance_id), _time(said.get("time")))


def parse_rebalance(body: bytes, instance_id: str) -> Notice:
    """`events/recommendations/rebalance` of the metadata service."""
    _time(_object(body).get("noticeTime"))
    return Notice(Signal.REBALANCE, _instance(instance_id))


def parse_event(body: bytes | str) -> Notice | None:
    """One EventBridge event from the queue; None for events of other kinds."""
    event = _object(body)
    detail = cast("dict[str, Any]", event["detail"]) if isinstance(event.get("detail"), dict) else {}
    match event.get("source"), event.get("detail-type"):
        case "aws.ec2", "EC2 Spot Instance Interruption Warning":
            return Notice(
                Signal.INTERRUPTION,
                _instance(detail.get("instance-id")),
                _time(event.get("time")) + NOTICE_LIFE_S,
            )
        case "aws.ec2", "EC2 Instance Rebalance Recommendation":
            return Notice(Signal.REBALANCE, _instance(detail.get("instance-id")))
        case "aws.autoscaling", (
            "EC2 Instance-launch Lifecycle Action" | "EC2 Instance-terminate Lifecycle Action"
        ) as kind:
            signal = Signal.LAUNCHING if "launch" in kind else Signal.TERMINATING
            return Notice(signal, _instance(detail.get("EC2InstanceId")), None, _hook(detail))
        case _:
            return None


def _hook(detail: dict[str, Any]) -> Hook:
    asg, name, token = (
        detail.get(k) for k in ("AutoScalingGroupName", "LifecycleHookName", "LifecycleActionToken")
    )
    if not (
        isinstance(asg, str) and isinstance(name, str) and isinstance(token, str) and asg and name and token
    ):
        raise BadNotice("a lifecycle action lacks its group, hook or token")
    if len(token) != _TOKEN_CHARS:
        raise BadNotice(f"not a lifecycle action's token: {token!r:.40}")
    return Hook(asg, name, token)


def _object(body: bytes | str) -> dict[str, Any]:
    if len(body) > MAX_BODY_BYTES:
        raise BadNotice(f"{len(body)} bytes are more than AWS sends")
    try:
        said: object = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadNotice("not JSON") from error
    if not isinstance(said, dict):
        raise BadNotice("not a JSON object")
    return cast("dict[str, Any]", said)


def _instance(value: object) -> str:
    if not isinstance(value, str) or not _INSTANCE.match(value):
        raise BadNotice(f"not an instance id: {value!r:.40}")
    return value


def _time(value: object) -> float:
    if not isinstance(value, str) or len(value) > 40:
        raise BadNotice(f"not a time: {value!r:.40}")
    try:
        when = datetime.fromisoformat(value)
    except ValueError as error:
        raise BadNotice(f"not a time: {value!r}") from error
    if when.tzinfo is None:
        raise BadNotice(f"a time without a zone: {value!r}")
    return when.timestamp()
