"""Machines on EC2 Auto Scaling: the `Nodes` port over boto3."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

from services.capacity.nodes import Bounds, NodesError, PoolView
from services.capacity.notices import Hook

_T = TypeVar("_T")
_RETRYABLE = {
    "Throttling",
    "ThrottlingException",
    "RequestLimitExceeded",
    "ResourceContention",
    "ScalingActivityInProgress",
    "InternalFailure",
    "ServiceUnavailable",
}
# Short time-outs: a notice leaves two minutes, and one hung call must not eat them.
BOTO_CONFIG = Config(connect_timeout=3, read_timeout=25, retries={"mode": "standard", "max_attempts": 3})


def guarded(call: Callable[[], _T]) -> _T:
    """Run one AWS call; AWS's errors become NodesError."""
    try:
        return call()
    except ClientError as error:
        said: Any = error.response.get("Error", {})
        raise NodesError(str(error), str(said.get("Code")) in _RETRYABLE) from error
    except BotoCoreError as error:
        # What cannot even be sent (a name that is too long) will not be sendable later; everything else is the way.
        raise NodesError(str(error), retryable=not isinstance(error, ParamValidationError)) from error


class Ec2Nodes:
    """Auto Scaling groups of one region. `endpoint_url` is for a fake on loopback."""

    def __init__(self, region: str, endpoint_url: str | None = None) -> None:
        self._autoscaling: Any = boto3.client(
            "autoscaling", region_name=region, endpoint_url=endpoint_url, config=BOTO_CONFIG
        )

    def view(self, asgs: tuple[str, ...]) -> dict[str, PoolView]:
        found: dict[str, PoolView] = {}
        for start in range(0, len(asgs), 50):  # a call names 50 groups at most
            names = list(asgs[start : start + 50])
            page = guarded(
                lambda names=names: self._autoscaling.describe_auto_scaling_groups(
                    AutoScalingGroupNames=names
                )
            )
            for group in page["AutoScalingGroups"]:
                found[group["AutoScalingGroupName"]] = _view(group)
        return found

    def set_desired(self, asg: str, size: int) -> None:
        guarded(
            lambda: self._autoscaling.set_desired_capacity(
                AutoScalingGroupName=asg, DesiredCapacity=size, HonorCooldown=False
            )
        )

    def answer_hook(self, instance_id: str, hook: Hook) -> None:
        try:
            guarded(
                lambda: self._autoscaling.complete_lifecycle_action(
                    AutoScalingGroupName=hook.asg,
                    LifecycleHookName=hook.name,
                    LifecycleActionToken=hook.token,
                    InstanceId=instance_id,
                    LifecycleActionResult="CONTINUE",
                )
            )
        except NodesError as error:
            if "No active Lifecycle Action" not in error.message:
                raise

    def terminate(self, instance_id: str) -> None:
        """AWS names neither the error's kind nor the group, hence the look at its words ("Instance Id not found")."""
        try:
            guarded(
                lambda: self._autoscaling.terminate_instance_in_auto_scaling_group(
                    InstanceId=instance_id, ShouldDecrementDesiredCapacity=True
                )
            )
        except NodesError as error:
            if "not found" not in error.message.lower():
                raise


def _view(group: dict[str, Any]) -> PoolView:
    by_state: dict[str, list[str]] = {"starting": [], "serving": [], "leaving": []}
    for instance in group["Instances"]:
        state: str = instance["LifecycleState"]
        kind = "serving" if state == "InService" else "starting" if state.startswith("Pending") else "leaving"
        by_state[kind].append(instance["InstanceId"])
    distribution: dict[str, Any] = group.get("MixedInstancesPolicy", {}).get("InstancesDistribution", {})
    return PoolView(
        asg=group["AutoScalingGroupName"],
        desired=group["DesiredCapacity"],
        starting=tuple(by_state["starting"]),
        serving=tuple(by_state["serving"]),
        leaving=tuple(by_state["leaving"]),
        bounds=Bounds(group["MinSize"], group["MaxSize"], int(distribution.get("OnDemandBaseCapacity") or 0)),
    )
