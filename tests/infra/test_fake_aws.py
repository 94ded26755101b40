"""environments/local applied to a fake AWS, and what boto3 then sees there (never the state file)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.infra.conftest import REGION, REPLICA_REGION, Cloud
from tests.infra.seed import client
from tests.infra.terraform import Terraform

NAME = "expertmesh-local"
TLS_13 = "ELBSecurityPolicy-TLS13-1-3-2021-06"


@pytest.fixture(scope="module")
def aws(applied: Terraform, cloud: Cloud) -> Any:
    """`aws("ec2")`: a client of the home region, once everything is applied."""
    return lambda service, region=REGION: client(service, cloud.url, region)


@pytest.mark.parametrize("environment", ["dev", "prod"])
def test_dev_and_prod_plan(environment: str, tree: Path, tf_env: dict[str, str], cloud: Cloud) -> None:
    """The values of both environments pass every validation with real data sources."""
    folder = tree / "environments" / environment
    (folder / "backend_override.tf").write_text('terraform {\n  backend "local" {}\n}\n', encoding="utf-8")
    (folder / "test.auto.tfvars").write_text(cloud.tfvars(), encoding="utf-8")
    terraform = Terraform(folder, {**tf_env, "AWS_ENDPOINT_URL": cloud.url})
    terraform.run("init", "-no-color", "-input=false", "-lockfile=readonly")
    said = terraform.run("plan", "-no-color", "-input=false", "-lock=false")
    assert "0 to change, 0 to destroy" in said


def test_second_plan_is_empty(aws: Any, applied: Terraform) -> None:
    """Also after the controller set a size: that is no drift."""
    aws("autoscaling").set_desired_capacity(AutoScalingGroupName=f"{NAME}-gpu-spot", DesiredCapacity=4)
    applied.run("plan", "-detailed-exitcode", "-no-color", "-input=false", "-parallelism=40", expect=0)


def test_launch_templates(aws: Any) -> None:
    ec2 = aws("ec2")
    templates = ec2.describe_launch_templates()["LaunchTemplates"]
    assert {t["LaunchTemplateName"] for t in templates} == {
        f"{NAME}-{p}" for p in ("head", "gateway", "gpu-spot", "gpu-fallback", "gpu-vip")
    }
    for template in templates:
        versions = ec2.describe_launch_template_versions(
            LaunchTemplateId=template["LaunchTemplateId"], Versions=["$Latest"]
        )
        data = versions["LaunchTemplateVersions"][0]["LaunchTemplateData"]
        assert data["MetadataOptions"]["HttpTokens"] == "required", "IMDSv2 only"
        assert data["MetadataOptions"]["HttpPutResponseHopLimit"] == 1
        for mapping in data["BlockDeviceMappings"]:
            assert (
                mapping["Ebs"]["Encrypted"] is True
                and mapping["Ebs"]["VolumeType"] == "gp3"
                and mapping["Ebs"]["KmsKeyId"]
            )
        cards = data["NetworkInterfaces"]
        assert all(card.get("AssociatePublicIpAddress") in (False, None) for card in cards)
        assert len(cards) > 1 or cards[0]["AssociatePublicIpAddress"] is False


def test_no_machine_has_a_public_address(aws: Any) -> None:
    reservations = aws("ec2").describe_instances()["Reservations"]
    instances = [i for r in reservations for i in r["Instances"]]
    assert instances
    groups = aws("ec2").describe_subnets(
        Filters=[{"Name": "tag:Tier", "Values": ["public", "private", "data"]}]
    )["Subnets"]
    assert len(groups) == 9 and not any(s["MapPublicIpOnLaunch"] for s in groups)


def test_only_443_is_open(aws: Any, applied: Terraform) -> None:
    vpc = applied.json("output", "-json")["vpc_id"]["value"]
    rules = aws("ec2").describe_security_group_rules()["SecurityGroupRules"]
    ours = {
        g["GroupId"]: g
        for g in aws("ec2").describe_security_groups(Filters=[{"Name": "vpc-id", "Values": [vpc]}])[
            "SecurityGroups"
        ]
    }
    open_ports = {
        (r["FromPort"], r["ToPort"])
        for r in rules
        if r["GroupId"] in ours
        and not r["IsEgress"]
        and (r.get("CidrIpv4") == "0.0.0.0/0" or r.get("CidrIpv6"))
    }
    assert open_ports == {(443, 443)}
    default = next(g for g in ours.values() if g["GroupName"] == "default")
    assert not default["IpPermissions"] and not default["IpPermissionsEgress"], "the default group is closed"


def test_the_door(aws: Any, applied: Terraform) -> None:
    elb = aws("elbv2")
    listeners = elb.describe_listeners(
        LoadBalancerArn=applied.json("output", "-json")["load_balancer_arn"]["value"]
    )["Listeners"]
    assert [(x["Port"], x["Protocol"], x["SslPolicy"]) for x in listeners] == [(443, "HTTPS", TLS_13)]
    groups = {g["TargetGroupName"]: g for g in elb.describe_target_groups()["TargetGroups"]}
    assert groups[f"{NAME}-grpc"]["ProtocolVersion"] == "GRPC"


def test_both_rate_rules(aws: Any) -> None:
    waf = aws("wafv2")
    acl = next(a for a in waf.list_web_acls(Scope="REGIONAL")["WebACLs"] if a["Name"] == NAME)
    rules = {
        r["Name"]: r for r in waf.get_web_acl(Name=NAME, Scope="REGIONAL", Id=acl["Id"])["WebACL"]["Rules"]
    }
    address = rules["rate-per-address"]["Statement"]["RateBasedStatement"]
    key = rules["rate-per-key"]["Statement"]["RateBasedStatement"]
    assert address["AggregateKeyType"] == "IP" and address["Limit"] == 2000
    assert (
        key["AggregateKeyType"] == "CUSTOM_KEYS"
        and key["CustomKeys"][0]["Header"]["Name"] == "authorization"
        and key["Limit"] == 6000
    )
    assert sum("ManagedRuleGroupStatement" in r["Statement"] for r in rules.values()) == 4
    assert rules["rate-per-address"]["Priority"] < rules["AWSManagedRulesCommonRuleSet"]["Priority"]


def test_pools(aws: Any) -> None:
    groups = {
        g["AutoScalingGroupName"]: g
        for g in aws("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
    }
    vip, spot = groups[f"{NAME}-gpu-vip"], groups[f"{NAME}-gpu-spot"]
    share = vip["MixedInstancesPolicy"]["InstancesDistribution"]
    assert share["OnDemandPercentageAboveBaseCapacity"] == 100 and not vip["CapacityRebalance"], (
        "VIP without spot"
    )
    assert len(vip["VPCZoneIdentifier"].split(",")) == 1
    assert spot["CapacityRebalance"] is True
    assert (
        spot["MixedInstancesPolicy"]["InstancesDistribution"]["SpotAllocationStrategy"]
        == "price-capacity-optimized"
    )
    assert len(spot["MixedInstancesPolicy"]["LaunchTemplate"]["Overrides"]) >= 10
    assert len(spot["VPCZoneIdentifier"].split(",")) == 3
    assert all(g["NewInstancesProtectedFromScaleIn"] for g in groups.values())
    for name in groups:
        hooks = {
            h["LifecycleHookName"]: h
            for h in aws("autoscaling").describe_lifecycle_hooks(AutoScalingGroupName=name)["LifecycleHooks"]
        }
        assert hooks["join"]["DefaultResult"] == "ABANDON" and hooks["drain"]["DefaultResult"] == "CONTINUE"
        assert hooks["drain"]["HeartbeatTimeout"] <= 120
    reservations = aws("ec2").describe_capacity_reservations()["CapacityReservations"]
    assert [
        (r["InstanceType"], r["TotalInstanceCount"], r["InstanceMatchCriteria"]) for r in reservations
    ] == [("p5.48xlarge", 2, "targeted")]


def test_buckets(aws: Any) -> None:
    home, away = aws("s3"), aws("s3", REPLICA_REGION)
    names = {b["Name"]: b for b in home.list_buckets()["Buckets"]}
    kinds = {
        kind: next(n for n in names if n.startswith(f"{NAME}-{kind}-") and n.endswith(REGION))
        for kind in ("models", "sessions", "logs", "access")
    }
    for kind, bucket in kinds.items():
        algorithm = home.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"][
            0
        ]["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"]
        assert algorithm == ("AES256" if kind == "access" else "aws:kms")
        assert home.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
        assert all(home.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"].values())
        policy = json.loads(home.get_bucket_policy(Bucket=bucket)["Policy"])
        assert any(
            s["Effect"] == "Deny"
            and s.get("Condition", {}).get("Bool", {}).get("aws:SecureTransport") == "false"
            for s in policy["Statement"]
        )
        if kind != "access":
            rule = home.get_bucket_replication(Bucket=bucket)["ReplicationConfiguration"]["Rules"][0]
            copy = rule["Destination"]["Bucket"].rsplit(":", 1)[-1]
            assert (
                copy.endswith(REPLICA_REGION)
                and away.get_bucket_versioning(Bucket=copy)["Status"] == "Enabled"
            )


def test_secrets_never_reach_the_state(aws: Any, applied: Terraform) -> None:
    manager = aws("secretsmanager")
    state = (applied.folder / "terraform.tfstate").read_text(encoding="utf-8")
    values = [
        manager.get_secret_value(SecretId=s["ARN"])["SecretString"]
        for s in manager.list_secrets()["SecretList"]
    ]
    assert len(values) == 2 and all(len(v) >= 43 for v in values)
    assert not any(v in state for v in values)


def test_roles_spell_out_their_actions(aws: Any) -> None:
    iam = aws("iam")
    for kind in ("head", "ingress", "worker"):
        policy = iam.get_role_policy(RoleName=f"{NAME}-{kind}", PolicyName="mesh")["PolicyDocument"]
        assert all("*" not in action for s in policy["Statement"] for action in s["Action"])


def test_sizes_change_in_place(aws: Any, applied: Terraform) -> None:
    """A new size updates the group; the size that the controller set (in the second plan's test) stays. What that plan
    has just refreshed is not read again."""
    scaling = aws("autoscaling")
    said = applied.run(
        "apply", "-auto-approve", "-no-color", "-input=false", "-parallelism=40", "-refresh=false",
        "-var=gpu_spot_max_size=8",
    )  # fmt: skip
    assert "Resources: 0 added, 1 changed, 0 destroyed." in said
    group = scaling.describe_auto_scaling_groups(AutoScalingGroupNames=[f"{NAME}-gpu-spot"])[
        "AutoScalingGroups"
    ][0]
    assert (group["MaxSize"], group["DesiredCapacity"]) == (8, 4)


def test_destroy_leaves_nothing(aws: Any, applied: Terraform) -> None:
    applied.run("destroy", "-auto-approve", "-no-color", "-input=false", "-parallelism=40", "-refresh=false")
    assert applied.json("show", "-json").get("values") is None
    ec2 = aws("ec2")
    assert not [v for v in ec2.describe_vpcs()["Vpcs"] if not v["IsDefault"]]
    assert not aws("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
    assert not aws("elbv2").describe_load_balancers()["LoadBalancers"]
    assert not aws("s3").list_buckets()["Buckets"]
    assert not aws("sqs").list_queues().get("QueueUrls")
    assert not aws("wafv2").list_web_acls(Scope="REGIONAL")["WebACLs"]
    assert not aws("secretsmanager").list_secrets()["SecretList"]
    assert not [r for r in aws("iam").list_roles()["Roles"] if NAME in r["RoleName"]]
    assert {r["State"] for r in ec2.describe_capacity_reservations()["CapacityReservations"]} == {"cancelled"}
