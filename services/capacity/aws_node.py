"""What a node asks of AWS while it boots: secrets, weights, its name in DNS, its own hook."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import boto3

from services.capacity.boot_plan import Fetch, ModelFacts, S3Object, fetch_plan
from services.capacity.ec2_nodes import BOTO_CONFIG, guarded
from services.capacity.nodes import NodesError

_STREAMS = 16  # S3 gives about 90 MB/s a connection; sixteen fill a 12 Gb/s card


class AwsNode:
    """Blocking; every method raises NodesError. `endpoint_url` is for a fake on loopback."""

    def __init__(self, region: str, endpoint_url: str | None = None) -> None:
        self._region, self._endpoint_url = region, endpoint_url

    def _client(self, service: str) -> Any:
        return boto3.client(
            service, region_name=self._region, endpoint_url=self._endpoint_url, config=BOTO_CONFIG
        )

    def secret(self, arn: str) -> str:
        """A secret's text. Keep it out of logs and command lines."""
        return str(
            guarded(lambda: self._client("secretsmanager").get_secret_value(SecretId=arn))["SecretString"]
        )

    def fetch_model(self, model: ModelFacts, root: Path) -> tuple[Fetch, ...]:
        """Bring a model's files below `root`, and return what was fetched. A file appears under its name only
        when it is whole, so that a restart goes on where it stopped."""
        s3 = self._client("s3")
        bucket, prefix = model.s3_uri[5:].split("/", 1)
        objects: list[S3Object] = []
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix + "/")
        for page in guarded(lambda: list(pages)):
            objects += [S3Object(o["Key"], o["Size"]) for o in page.get("Contents", [])]
        present = {
            str(p.relative_to(root)): p.stat().st_size for p in (root / model.name).rglob("*") if p.is_file()
        }
        plan = fetch_plan(model, objects, present)
        missing = sum(f.num_bytes for f in plan)
        root.mkdir(parents=True, exist_ok=True)
        if missing > (free := shutil.disk_usage(root).free):
            raise NodesError(
                f"model {model.name} needs {missing} bytes, {root} has {free}: use a larger volume or instance store"
            )
        with ThreadPoolExecutor(_STREAMS) as pool:
            list(pool.map(partial(self._fetch_one, s3, bucket, root=root), plan))
        return plan

    @staticmethod
    def _fetch_one(s3: Any, bucket: str, fetch: Fetch, root: Path) -> None:
        target = root / fetch.path
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(target.name + ".part")
        guarded(lambda: s3.download_file(bucket, fetch.key, str(part)))
        part.rename(target)

    def point_head_at(self, zone_id: str, record: str, address: str) -> None:
        """The head's name points at this node from now on (within its 10 s of TTL)."""
        change = {
            "Action": "UPSERT",
            "ResourceRecordSet": {
                "Name": record,
                "Type": "A",
                "TTL": 10,
                "ResourceRecords": [{"Value": address}],
            },
        }
        guarded(
            lambda: self._client("route53").change_resource_record_sets(
                HostedZoneId=zone_id, ChangeBatch={"Changes": [change]}
            )
        )

    def joined(self, asg: str, hook: str, instance_id: str) -> None:
        """Tell Auto Scaling that this node serves. A hook that no longer waits is fine (a reboot)."""
        try:
            guarded(
                lambda: self._client("autoscaling").complete_lifecycle_action(
                    AutoScalingGroupName=asg,
                    LifecycleHookName=hook,
                    InstanceId=instance_id,
                    LifecycleActionResult="CONTINUE",
                )
            )
        except NodesError as error:
            if "No active Lifecycle Action" not in error.message:
                raise

    def joining_takes_longer(self, asg: str, hook: str, instance_id: str) -> None:
        """Start the hook's time-out anew (weights of hundreds of gigabytes)."""
        guarded(
            lambda: self._client("autoscaling").record_lifecycle_action_heartbeat(
                AutoScalingGroupName=asg, LifecycleHookName=hook, InstanceId=instance_id
            )
        )
