"""A fake AWS on loopback: moto's server, and the few calls that it lacks.

What belongs here: behaviour of AWS that Terraform's provider or our node side relies on and moto 5.2 does not
have. Each patch says what real AWS does. It must not know our modules: no resource name appears here.

Run as a program (`python tests/infra/fake_aws.py`) it prints its URL on one line and serves until standard
input closes, so that a test that dies takes it along.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
from typing import Any

os.environ.setdefault("MOTO_IAM_LOAD_MANAGED_POLICIES", "true")
os.environ.setdefault(
    "MOTO_EC2_LOAD_DEFAULT_AMIS", "false"
)  # hundreds of images take it seconds; one is enough

from moto.autoscaling.responses import AutoScalingResponse
from moto.core.responses import ActionResult, EmptyResult
from moto.ec2.models.security_groups import SecurityGroupRule
from moto.ec2.responses import EC2Response
from moto.kms.responses import KmsResponse
from moto.resourcegroups import urls as resourcegroups_urls
from moto.resourcegroups.responses import ResourceGroupsResponse
from moto.route53.responses import Route53
from moto.s3.exceptions import ReplicationConfigurationNotFoundError
from moto.s3.responses import S3Response
from moto.server import ThreadedMotoServer
from moto.sqs.models import Queue

# (account, region) -> id -> reservation
_reservations: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
_members: dict[str, list[dict[str, str]]] = {}
_numbers = itertools.count(1)


def _reservation_create(self: Any) -> ActionResult:
    """EC2 answers at once with state `active` where the capacity is there."""
    number = next(_numbers)
    key = (self.current_account, self.region)
    rid = f"cr-{number:017x}"
    count = self._get_int_param("InstanceCount")
    tags = [t for spec in self._get_param("TagSpecifications", []) for t in spec.get("Tags", [])]
    reservation: dict[str, Any] = {
        "CapacityReservationId": rid,
        "CapacityReservationArn": f"arn:aws:ec2:{self.region}:{self.current_account}:capacity-reservation/{rid}",
        "OwnerId": self.current_account,
        "InstanceType": self._get_param("InstanceType"),
        "InstancePlatform": self._get_param("InstancePlatform"),
        "AvailabilityZone": self._get_param("AvailabilityZone"),
        "Tenancy": self._get_param("Tenancy", "default"),
        "TotalInstanceCount": count,
        "AvailableInstanceCount": count,
        "EbsOptimized": self._get_bool_param("EbsOptimized", False),
        "EphemeralStorage": self._get_bool_param("EphemeralStorage", False),
        "State": "active",
        "EndDateType": self._get_param("EndDateType", "unlimited"),
        "InstanceMatchCriteria": self._get_param("InstanceMatchCriteria", "open"),
        "PlacementGroupArn": self._get_param("PlacementGroupArn"),
        "Tags": tags,
    }
    _reservations.setdefault(key, {})[rid] = reservation
    return ActionResult({"CapacityReservation": reservation})


def _reservation_describe(self: Any) -> ActionResult:
    known = _reservations.get((self.current_account, self.region), {})
    wanted = self._get_param("CapacityReservationIds", [])
    return ActionResult(
        {
            "CapacityReservations": [
                r for r in known.values() if not wanted or r["CapacityReservationId"] in wanted
            ]
        }
    )


def _reservation_cancel(self: Any) -> ActionResult:
    known = _reservations.get((self.current_account, self.region), {})
    rid = self._get_param("CapacityReservationId")
    if rid in known:
        known[rid]["State"] = "cancelled"
    return ActionResult({"Return": True})


_placement: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}


def _placement_create(self: Any) -> ActionResult:
    name = self._get_param("GroupName")
    group: dict[str, Any] = {
        "GroupName": name,
        "GroupId": f"pg-{next(_numbers):017x}",
        "GroupArn": f"arn:aws:ec2:{self.region}:{self.current_account}:placement-group/{name}",
        "State": "available",
        "Strategy": self._get_param("Strategy", "cluster"),
        "Tags": [t for spec in self._get_param("TagSpecifications", []) for t in spec.get("Tags", [])],
    }
    _placement.setdefault((self.current_account, self.region), {})[name] = group
    return ActionResult({"PlacementGroup": group})


def _placement_describe(self: Any) -> ActionResult:
    from moto.ec2.exceptions import EC2ClientError

    known = _placement.get((self.current_account, self.region), {})
    wanted: list[str] = self._get_param("GroupNames", [])
    if missing := [name for name in wanted if name not in known]:
        raise EC2ClientError(
            "InvalidPlacementGroup.Unknown", f"The Placement Group '{missing[0]}' is unknown."
        )
    return ActionResult({"PlacementGroups": [g for n, g in known.items() if not wanted or n in wanted]})


def _placement_delete(self: Any) -> EmptyResult:
    _placement.get((self.current_account, self.region), {}).pop(self._get_param("GroupName"), None)
    return EmptyResult()


def _configuration_get(self: Any) -> str:
    """Real AWS adds the status of the update; the provider waits for it."""
    configuration = self.resourcegroups_backend.get_group_configuration(group_name=_group_name(self))
    return json.dumps({"GroupConfiguration": {"Configuration": configuration, "Status": "UPDATE_COMPLETE"}})


_query_get = ResourceGroupsResponse.get_group_query


def _group_query(self: Any) -> str:
    """Real AWS refuses the question for a group that is made of a configuration."""
    from moto.resourcegroups.exceptions import BadRequestException

    if self.resourcegroups_backend.get_group_configuration(group_name=_group_name(self)):
        raise BadRequestException("Operation not allowed for a group with a configuration")
    return _query_get(self)


def _group_name(self: Any) -> str:
    return str(self._get_param("Group") or self._get_param("GroupName")).rsplit("/", 1)[-1]


def _group_members_add(self: Any) -> str:
    members = _members.setdefault(_group_name(self), [])
    arns: list[str] = self._get_param("ResourceArns")
    members += [{"ResourceArn": a, "ResourceType": "AWS::EC2::CapacityReservation"} for a in arns]
    return json.dumps({"Succeeded": arns, "Failed": [], "Pending": []})


def _group_members_remove(self: Any) -> str:
    arns: list[str] = self._get_param("ResourceArns")
    name = _group_name(self)
    _members[name] = [m for m in _members.get(name, []) if m["ResourceArn"] not in arns]
    return json.dumps({"Succeeded": arns, "Failed": [], "Pending": []})


def _group_members_list(self: Any) -> str:
    members = _members.get(_group_name(self), [])
    resources = [{"Identifier": m, "Status": {}} for m in members]
    return json.dumps({"Resources": resources, "ResourceIdentifiers": members, "QueryErrors": []})


_group_create = AutoScalingResponse.create_auto_scaling_group
_group_update = AutoScalingResponse.update_auto_scaling_group


def _remember(self: Any) -> None:
    """Parameters that moto drops, and real AWS returns from a describe."""
    group = self.autoscaling_backend.autoscaling_groups[self._get_param("AutoScalingGroupName")]
    for parameter, attribute in (
        ("ServiceLinkedRoleARN", "service_linked_role_arn"),
        ("MaxInstanceLifetime", "max_instance_lifetime"),
        ("DefaultInstanceWarmup", "default_instance_warmup"),
    ):
        if (value := self._get_param(parameter)) is not None:
            setattr(group, attribute, value)


def _asg_create(self: Any) -> ActionResult:
    """Real AWS makes the hooks of LifecycleHookSpecificationList together with the group."""
    result = _group_create(self)
    _remember(self)
    for hook in self._get_param("LifecycleHookSpecificationList", []):
        self.autoscaling_backend.create_lifecycle_hook(
            name=hook["LifecycleHookName"],
            as_name=self._get_param("AutoScalingGroupName"),
            transition=hook["LifecycleTransition"],
            timeout=int(hook.get("HeartbeatTimeout", 3600)),
            result=hook.get("DefaultResult", "ABANDON"),
        )
    return result


def _asg_update(self: Any) -> ActionResult:
    """An update that does not name the mixed instances policy leaves it as it was."""
    group = self.autoscaling_backend.autoscaling_groups[self._get_param("AutoScalingGroupName")]
    policy = group.mixed_instances_policy
    result = _group_update(self)
    if self._get_param("MixedInstancesPolicy") is None:
        group.mixed_instances_policy = policy
    _remember(self)
    return result


def _hook_answered(self: Any) -> EmptyResult:
    """CompleteLifecycleAction and RecordLifecycleActionHeartbeat: refuse a hook that is not there, as AWS does."""
    from moto.autoscaling.exceptions import ValidationError

    name, group = self._get_param("LifecycleHookName"), self._get_param("AutoScalingGroupName")
    if not self.autoscaling_backend.describe_lifecycle_hooks(group, [name]):
        raise ValidationError(f"No active Lifecycle Action found with hook {name} of group {group}")
    return EmptyResult()


_desired_set = AutoScalingResponse.set_desired_capacity
_instance_terminate = AutoScalingResponse.terminate_instance_in_auto_scaling_group


def _desired_within_bounds(self: Any) -> Any:
    """Real AWS knows its groups by name, and keeps every size between the group's bounds."""
    from moto.autoscaling.exceptions import ValidationError

    name, wanted = self._get_param("AutoScalingGroupName"), self._get_int_param("DesiredCapacity")
    group = self.autoscaling_backend.autoscaling_groups.get(name)
    if group is None:
        raise ValidationError("AutoScalingGroup name not found - null")
    if wanted > group.max_size:
        raise ValidationError(
            f"New SetDesiredCapacity value {wanted} is above max value {group.max_size} for it."
        )
    if wanted < group.min_size:
        raise ValidationError(
            f"New SetDesiredCapacity value {wanted} is below min value {group.min_size} for it."
        )
    return _desired_set(self)


def _terminate_within_bounds(self: Any) -> ActionResult:
    """Real AWS knows no machine that has left its group, and does not shrink a group below its minimum."""
    from moto.autoscaling.exceptions import ValidationError

    instance_id = self._get_param("InstanceId")
    groups = self.autoscaling_backend.autoscaling_groups.values()
    group = next((g for g in groups if any(s.instance.id == instance_id for s in g.instance_states)), None)
    if group is None:
        raise ValidationError(
            f"Instance Id not found - No managed instance found for instance ID: {instance_id}"
        )
    decrement = self._get_bool_param("ShouldDecrementDesiredCapacity", False)
    if decrement and group.desired_capacity <= group.min_size:
        raise ValidationError(
            f"Currently, desiredSize equals minSize ({group.min_size}). Terminating instance without "
            "replacement will violate group's min size constraint. "
            "Either set shouldDecrementDesiredCapacity flag to false or lower group's min size."
        )
    return _instance_terminate(self)


_attributes_set = Queue._set_attributes


def _queue_attributes_set(self: Any, attributes: dict[str, Any], now: float | None = None) -> None:
    """Setting one attribute leaves the queue's policy alone; moto forgets it."""
    _attributes_set(self, {"Policy": getattr(self, "policy", None), **attributes}, now)


_rotation_enable = KmsResponse.enable_key_rotation
_rotation_days: dict[str, int] = {}


def _rotation_on(self: Any) -> str:
    _rotation_days[self._get_param("KeyId").rsplit("/", 1)[-1]] = (
        self._get_param("RotationPeriodInDays") or 365
    )
    return _rotation_enable(self)


def _rotation_status(self: Any) -> str:
    """Real AWS says the period too."""
    key_id = self._get_param("KeyId").rsplit("/", 1)[-1]
    on = self.kms_backend.get_key_rotation_status(key_id)
    return json.dumps(
        {"KeyRotationEnabled": on, "RotationPeriodInDays": _rotation_days.get(key_id, 365)}
        if on
        else {"KeyRotationEnabled": on}
    )


_zone_create = Route53.create_hosted_zone


def _zone_with_vpc(self: Any) -> Any:
    """A zone that is made with a VPC is private, whether or not the request says so."""
    ask = self._get_param
    self._get_bool_param = lambda name, default=False: (
        bool(ask("VPC.VPCId")) if name == "HostedZoneConfig.PrivateZone" else default
    )
    return _zone_create(self)


def _rule_description(self: Any) -> str | None:
    """A rule that names a group has a description as well."""
    return self.ip_range.get("Description") or (self.source_group or {}).get("Description")


_queue_attributes = Queue.attributes.fget


def _compact_attributes(self: Any) -> dict[str, Any]:
    """Real AWS returns the redrive policy without blanks, and no policy that was set to nothing."""
    found = _queue_attributes(self)
    if not found.get("RedriveAllowPolicy"):
        found.pop("RedriveAllowPolicy", None)
    if found.get("RedrivePolicy"):
        found["RedrivePolicy"] = json.dumps(json.loads(found["RedrivePolicy"]), separators=(",", ":"))
    return found


def _replication_get(self: Any) -> Any:
    """Real AWS returns what was put; moto returns a few fields of it."""
    replication = self.backend.get_bucket_replication(self.bucket_name)
    if not replication:
        raise ReplicationConfigurationNotFoundError(bucket_name=self.bucket_name)
    self.data["Action"] = "GetBucketReplication"
    rules = [
        {**rule, "Priority": int(rule["Priority"]), "Filter": rule.get("Filter") or {"Prefix": ""}}
        for rule in replication["Rule"]
    ]
    return self.serialized(
        ActionResult({"ReplicationConfiguration": {"Role": replication["Role"], "Rules": rules}})
    )


_template_create = EC2Response.create_launch_template


def _template_without_own_tags(self: Any) -> ActionResult:
    """Tags of the template itself do not become part of what it launches."""
    result = _template_create(self)
    template = self.ec2_backend.get_launch_template_by_name(self._get_param("LaunchTemplateName"))
    for version in template.versions:
        specs = version.data.get("TagSpecifications")
        if specs:
            version.data["TagSpecifications"] = [
                s for s in specs if s.get("ResourceType") != "launch-template"
            ]
    return result


def install() -> None:
    """Puts the patches in place; once per process."""
    patches: list[tuple[type, str, Any]] = [
        (EC2Response, "create_capacity_reservation", _reservation_create),
        (EC2Response, "describe_capacity_reservations", _reservation_describe),
        (EC2Response, "cancel_capacity_reservation", _reservation_cancel),
        (EC2Response, "create_placement_group", _placement_create),
        (EC2Response, "describe_placement_groups", _placement_describe),
        (EC2Response, "delete_placement_group", _placement_delete),
        (ResourceGroupsResponse, "get_group_configuration", _configuration_get),
        (ResourceGroupsResponse, "get_group_query", _group_query),
        (ResourceGroupsResponse, "group_resources", _group_members_add),
        (ResourceGroupsResponse, "ungroup_resources", _group_members_remove),
        (ResourceGroupsResponse, "list_group_resources", _group_members_list),
        (AutoScalingResponse, "create_auto_scaling_group", _asg_create),
        (AutoScalingResponse, "update_auto_scaling_group", _asg_update),
        (AutoScalingResponse, "set_desired_capacity", _desired_within_bounds),
        (AutoScalingResponse, "terminate_instance_in_auto_scaling_group", _terminate_within_bounds),
        (AutoScalingResponse, "complete_lifecycle_action", _hook_answered),
        (AutoScalingResponse, "record_lifecycle_action_heartbeat", _hook_answered),
    ]
    patches += [
        (Queue, "_set_attributes", _queue_attributes_set),
        (Queue, "redrive_allow_policy", None),
        (Queue, "attributes", property(_compact_attributes)),
        (KmsResponse, "enable_key_rotation", _rotation_on),
        (KmsResponse, "get_key_rotation_status", _rotation_status),
        (Route53, "create_hosted_zone", _zone_with_vpc),
        (SecurityGroupRule, "description", property(_rule_description)),
        (S3Response, "get_bucket_replication", _replication_get),
        (EC2Response, "create_launch_template", _template_without_own_tags),
        (Queue, "BASE_ATTRIBUTES", [*Queue.BASE_ATTRIBUTES, "RedriveAllowPolicy"]),
    ]
    for owner, name, replacement in patches:
        setattr(owner, name, replacement)
    for path in ("group-resources", "ungroup-resources", "list-group-resources", "get-group-query"):
        resourcegroups_urls.url_paths[f"{{0}}/{path}$"] = ResourceGroupsResponse.dispatch


def serve() -> None:
    install()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    print(f"http://{host}:{port}", flush=True)
    sys.stdin.read()
    server.stop()


if __name__ == "__main__":
    serve()
