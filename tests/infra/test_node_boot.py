"""What a node asks of AWS while it boots, against the fake: secrets, weights from S3, its name, its hook."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.capacity import aws_node, bootstrap
from services.capacity.aws_node import AwsNode
from services.capacity.boot_plan import ModelFacts, NodeFacts
from services.capacity.imds_watch import Identity
from services.capacity.nodes import NodesError
from tests.infra.conftest import REGION, Cloud
from tests.infra.seed import client

BUCKET, GROUP, RECORD = "weights", "boot-group", "head.boot.internal"
WHO = Identity("i-0123456789abcdef0", f"{REGION}a", "g6.12xlarge", "10.40.1.2", "spot")
FILES = {"config.json": b"{}", "model-1.safetensors": b"1" * 70_000, "tokenizer/vocab.json": b"[]"}


@pytest.fixture(scope="module")
def account(cloud: Cloud) -> Iterator[dict[str, str]]:
    """A bucket with a model, a token, a zone, a group with a join hook; gone before the installation is looked at."""
    s3, secrets, scaling = (client(s, cloud.url, REGION) for s in ("s3", "secretsmanager", "autoscaling"))
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    for name, body in FILES.items():
        s3.put_object(Bucket=BUCKET, Key=f"tiny/{name}", Body=body)
    s3.put_object(Bucket=BUCKET, Key="tiny-2/other.json", Body=b"not ours")
    token = secrets.create_secret(Name="boot-token", SecretString="t0ken")["ARN"]
    dns = client("route53", cloud.url, REGION)
    zone = dns.create_hosted_zone(Name="boot.internal", CallerReference="x")["HostedZone"]["Id"]
    scaling.create_launch_configuration(
        LaunchConfigurationName="boot", ImageId=cloud.ami_id, InstanceType="t3.micro"
    )
    scaling.create_auto_scaling_group(
        AutoScalingGroupName=GROUP, MinSize=0, MaxSize=1, LaunchConfigurationName="boot",
        AvailabilityZones=[f"{REGION}a"],
        LifecycleHookSpecificationList=[
            {"LifecycleHookName": "join", "LifecycleTransition": "autoscaling:EC2_INSTANCE_LAUNCHING"}
        ],
    )  # fmt: skip
    yield {"token": token, "zone": zone.rsplit("/", 1)[-1]}
    scaling.delete_auto_scaling_group(AutoScalingGroupName=GROUP, ForceDelete=True)
    secrets.delete_secret(SecretId=token, ForceDeleteWithoutRecovery=True)
    for item in s3.list_objects_v2(Bucket=BUCKET)["Contents"]:
        s3.delete_object(Bucket=BUCKET, Key=item["Key"])
    s3.delete_bucket(Bucket=BUCKET)


@pytest.fixture
def aws(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> AwsNode:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "local")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "local")
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    return AwsNode(REGION, cloud.url)


def facts_of(account: dict[str, str], **changed: Any) -> NodeFacts:
    return NodeFacts.model_validate(
        {
            "cluster": "mesh", "pool": "gpu-spot", "tier": "spot", "asg": GROUP, "region": REGION,
            "head_host": RECORD, "gcs_port": 6380, "ray_token_secret_arn": account["token"],
            "hooks": {"join": "join", "drain": "drain"}, "drain_seconds": 105, "graceful_shutdown_timeout_s": 40,
            "models": [{"name": "tiny", "s3_uri": f"s3://{BUCKET}/tiny"}],
        }
        | changed
    )  # fmt: skip


def fetched(models: Path) -> dict[str, bytes]:
    return {str(p.relative_to(models)): p.read_bytes() for p in models.rglob("*") if p.is_file()}


def test_a_worker_gets_its_secret_and_its_weights(
    account: dict[str, str], aws: AwsNode, tmp_path: Path
) -> None:
    bootstrap.prepare(facts_of(account), WHO, aws, tmp_path / "run", tmp_path / "models")
    assert fetched(tmp_path / "models") == {f"tiny/{name}": body for name, body in FILES.items()}
    secret = tmp_path / "run" / "ray.json"
    assert json.loads(secret.read_text())["RAY_AUTH_TOKEN"] == "t0ken"
    assert secret.stat().st_mode & 0o077 == 0, "only the service's user reads it"


def test_a_restart_goes_on_where_it_stopped(account: dict[str, str], aws: AwsNode, tmp_path: Path) -> None:
    model = facts_of(account).models[0]
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "config.json").write_bytes(FILES["config.json"])
    (tmp_path / "tiny" / "model-1.safetensors").write_bytes(b"1" * 10)  # cut off by an older, careless tool
    plan = aws.fetch_model(model, tmp_path)
    assert [str(fetch.path) for fetch in plan] == ["tiny/model-1.safetensors", "tiny/tokenizer/vocab.json"]
    assert fetched(tmp_path) == {f"tiny/{name}": body for name, body in FILES.items()}
    assert aws.fetch_model(model, tmp_path) == ()


def test_a_volume_that_is_too_small_says_so(
    account: dict[str, str], aws: AwsNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        free = 100

    monkeypatch.setattr(aws_node.shutil, "disk_usage", lambda path: Full)
    with pytest.raises(NodesError, match=r"model tiny needs 70004 bytes, .* has 100"):
        aws.fetch_model(facts_of(account).models[0], tmp_path)
    assert fetched(tmp_path) == {}


def test_a_model_that_is_not_there_is_one_error(
    account: dict[str, str], aws: AwsNode, tmp_path: Path
) -> None:
    with pytest.raises(NodesError):
        aws.fetch_model(ModelFacts(name="tiny", s3_uri="s3://no-such-bucket/tiny"), tmp_path)
    with pytest.raises(NodesError):
        aws.secret(account["token"].replace("boot-token", "absent"))


def test_the_join_hook_is_answered_when_the_node_is_healthy(
    account: dict[str, str], aws: AwsNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, waits = list[NodeFacts](), list[float]()
    monkeypatch.setattr(bootstrap.time, "sleep", waits.append)

    def healthy(facts: NodeFacts) -> bool:
        asked.append(facts)
        return len(asked) == 3

    facts = facts_of(account)
    bootstrap.join(facts, WHO, aws, healthy)
    assert len(asked) == 3 and waits == [bootstrap.POLL_S] * 2
    bootstrap.join(
        facts.model_copy(update={"hooks": facts.hooks.model_copy(update={"join": "gone"})}),
        WHO,
        aws,
        healthy=lambda f: True,
    )
    with pytest.raises(NodesError):
        aws.joining_takes_longer(GROUP, "gone", WHO.instance_id)


def test_the_head_points_its_name_at_itself(
    account: dict[str, str], aws: AwsNode, cloud: Cloud, tmp_path: Path
) -> None:
    facts = facts_of(account, tier="head", head_zone_id=account["zone"])
    for address in ("10.40.1.2", "10.40.2.3"):  # a new head
        bootstrap.prepare(
            facts, Identity(WHO.instance_id, WHO.zone, WHO.instance_type, address, "on-demand"), aws,
            tmp_path / "run", tmp_path / "models",
        )  # fmt: skip
    records = client("route53", cloud.url, REGION).list_resource_record_sets(HostedZoneId=account["zone"])
    found = [r for r in records["ResourceRecordSets"] if r["Type"] == "A"]
    assert [(r["TTL"], r["ResourceRecords"]) for r in found] == [(10, [{"Value": "10.40.2.3"}])]
    assert not (tmp_path / "models").exists(), "a head serves nobody: no weights"
