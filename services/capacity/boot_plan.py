"""What a new node does first, as values (pure).

Belongs here: the facts that Terraform wrote (`/etc/expertmesh/node.json`), the words of `ray start`, which
objects of a model are fetched where. Must not know: files, AWS, Ray, processes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from pydantic import BaseModel, ConfigDict, Field

from services.capacity.imds_watch import Identity
from services.config_capacity import CapacityConfig, DrainConfig, PoolConfig


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class RedisFacts(_Facts):
    """Where Ray keeps its tables."""

    host: str
    port: int
    username: str
    secret_arn: str


class ModelFacts(_Facts):
    """Weights to fetch."""

    name: str = Field(pattern=r"^[A-Za-z0-9._-]+$")
    s3_uri: str = Field(pattern=r"^s3://[a-z0-9.-]+/.+[^/]$")


class HookFacts(_Facts):
    """Names of the lifecycle hooks."""

    join: str
    drain: str


class NodeFacts(_Facts):
    """What user data says about this node; it holds no secret. Unknown keys are ignored: a node may be older
    than the Terraform that launched it."""

    cluster: str
    pool: str
    tier: str
    asg: str
    region: str
    head_host: str
    gcs_port: int
    ray_token_secret_arn: str
    hooks: HookFacts
    drain_seconds: float
    graceful_shutdown_timeout_s: float
    labels: Mapping[str, str] = Field(default_factory=dict)
    models: tuple[ModelFacts, ...] = ()
    redis: RedisFacts | None = None
    head_zone_id: str | None = None
    node_events_queue_url: str | None = None
    pools: str | None = None

    @property
    def is_head(self) -> bool:
        return self.tier == "head"

    @property
    def takes_clients(self) -> bool:
        """Whether gateways are placed here, behind the load balancer."""
        return self.labels.get("expertmesh.io/ingress") == "true"

    @property
    def gcs_address(self) -> str:
        return f"{self.head_host}:{self.gcs_port}"

    def capacity(self) -> CapacityConfig:
        """The head's section of the configuration, from what Terraform knows of the pools."""
        pools = _Pools.model_validate_json(f'{{"pools": {self.pools or "{}"}}}').pools
        return CapacityConfig(
            region=self.region,
            node_events_queue_url=self.node_events_queue_url,
            pools=pools,
            drain=DrainConfig(
                drain_seconds=self.drain_seconds, graceful_shutdown_timeout_s=self.graceful_shutdown_timeout_s
            ),
        )


class _Pools(_Facts):
    pools: dict[str, PoolConfig]


def ray_labels(facts: NodeFacts, identity: Identity) -> dict[str, str]:
    """The node's labels: pool, tier, capacity type, zone, instance. Serve's placement and the drain go by them."""
    return {
        **facts.labels,
        "expertmesh.io/pool": facts.pool,
        "expertmesh.io/tier": facts.tier,
        "expertmesh.io/capacity-type": identity.capacity_type,
        "expertmesh.io/zone": identity.zone,
        "expertmesh.io/instance-id": identity.instance_id,
        "expertmesh.io/instance-type": identity.instance_type,
    }


def ray_start_words(facts: NodeFacts, identity: Identity, program: str = "ray") -> list[str]:
    """`ray start … --block`. The head takes no work of its own (0 CPUs) unless it is all there is to serve."""
    labels = ",".join(f"{key}={value}" for key, value in sorted(ray_labels(facts, identity).items()))
    words = [program, "start", "--block", f"--node-ip-address={identity.private_ip}", f"--labels={labels}"]
    words += ["--disable-usage-stats", "--log-color=false"]
    if facts.is_head:
        words += ["--head", f"--port={facts.gcs_port}", "--dashboard-host=127.0.0.1"]
        if "expertmesh.io/head-takes-work" not in facts.labels:
            words.append("--num-cpus=0")
    else:
        words.append(f"--address={facts.gcs_address}")
    return words


def ray_environment(facts: NodeFacts, token: str, redis_password: str | None) -> dict[str, str]:
    """Ray's secrets, where its tables are, and malloc's heaps on nodes with gateways; for the process's environment,
    never for its command line."""
    environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token, "RAY_ADDRESS": facts.gcs_address}
    if facts.takes_clients:
        environment["MALLOC_ARENA_MAX"] = "2"  # Ray's forty threads fill a heap each, slowly (cli/run.py)
    if facts.is_head and facts.redis is not None and redis_password is not None:
        environment |= {
            "RAY_REDIS_ADDRESS": f"rediss://{facts.redis.host}:{facts.redis.port}",
            "REDIS_USERNAME": facts.redis.username,
            "REDIS_PASSWORD": redis_password,
            "RAY_external_storage_namespace": facts.cluster,
        }
    return environment


@dataclass(frozen=True, slots=True)
class S3Object:
    """An object as a listing shows it."""

    key: str
    num_bytes: int


@dataclass(frozen=True, slots=True)
class Fetch:
    """One object to one file below the models' directory."""

    key: str
    path: PurePosixPath
    num_bytes: int


_SAFE_PART = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._+=@-]*$")


def fetch_plan(
    model: ModelFacts, objects: Iterable[S3Object], present: Mapping[str, int]
) -> tuple[Fetch, ...]:
    """What is missing of a model, the largest first (they end last). `present`: sizes by relative path.

    A key that would leave the model's directory raises ValueError: whoever can write to the bucket must not
    be able to write to the node."""
    prefix = model.s3_uri.split("/", 3)[3] + "/"
    wanted: list[Fetch] = []
    for item in objects:
        if not item.key.startswith(prefix) or item.key == prefix or item.key.endswith("/"):
            continue
        parts = item.key[len(prefix) :].split("/")
        if not all(_SAFE_PART.match(part) for part in parts):
            raise ValueError(f"refused to fetch {item.key!r}: its name is not a plain file name")
        path = PurePosixPath(model.name, *parts)
        if present.get(str(path)) != item.num_bytes:
            wanted.append(Fetch(item.key, path, item.num_bytes))
    return tuple(sorted(wanted, key=lambda f: (-f.num_bytes, f.key)))
