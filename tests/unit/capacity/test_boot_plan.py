"""A new node's first steps, as values."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from services.capacity.boot_plan import (
    ModelFacts,
    NodeFacts,
    S3Object,
    fetch_plan,
    ray_environment,
    ray_start_words,
)
from services.capacity.imds_watch import Identity
from services.config_capacity import Tier

WHO = Identity("i-0123456789abcdef0", "eu-central-1a", "g6.12xlarge", "10.40.1.2", "spot")
COMMON = {
    "cluster": "mesh",
    "pool": "gpu-spot",
    "tier": "spot",
    "asg": "mesh-gpu-spot",
    "region": "eu-central-1",
    "head_host": "head.mesh.internal",
    "gcs_port": 6380,
    "ray_token_secret_arn": "arn:token",
    "hooks": {"join": "join", "drain": "drain"},
    "drain_seconds": 105,
    "graceful_shutdown_timeout_s": 40,
    "labels": {"expertmesh.io/pool": "gpu-spot"},
    "added_later": True,
}
WORKER = NodeFacts.model_validate(COMMON)
HEAD = NodeFacts.model_validate(
    {
        **COMMON,
        "pool": "head",
        "tier": "head",
        "redis": {"host": "redis", "port": 6379, "username": "mesh", "secret_arn": "arn:redis"},
        "pools": '{"gpu-spot": {"asg": "mesh-gpu-spot", "tier": "spot", "min_size": 0, "max_size": 4, '
        '"on_demand_percentage": 0, "fallback": null}}',
    }
)


def test_a_worker_joins_the_head_with_its_labels() -> None:
    words = ray_start_words(WORKER, WHO)
    assert (
        words[:3] == ["ray", "start", "--block"]
        and "--address=head.mesh.internal:6380" in words
        and "--head" not in words
    )
    labels = next(w for w in words if w.startswith("--labels="))
    for pair in (
        "expertmesh.io/pool=gpu-spot",
        "expertmesh.io/tier=spot",
        "expertmesh.io/capacity-type=spot",
        "expertmesh.io/zone=eu-central-1a",
    ):
        assert pair in labels


def test_the_head_takes_no_work_and_shows_no_dashboard() -> None:
    words = ray_start_words(HEAD, WHO)
    assert "--head" in words and "--num-cpus=0" in words and "--dashboard-host=127.0.0.1" in words


def test_secrets_are_in_the_environment_and_never_in_the_words() -> None:
    environment = ray_environment(HEAD, "t0ken", "passw0rd")
    assert (
        environment["RAY_AUTH_MODE"] == "token" and environment["RAY_REDIS_ADDRESS"] == "rediss://redis:6379"
    )
    assert not any("t0ken" in w or "passw0rd" in w for w in ray_start_words(HEAD, WHO))
    assert "RAY_REDIS_ADDRESS" not in ray_environment(WORKER, "t0ken", None)


def test_gateways_have_two_heaps_of_malloc_and_engines_what_they_like() -> None:
    door = WORKER.model_copy(update={"labels": {"expertmesh.io/ingress": "true"}})
    assert ray_environment(door, "t0ken", None)["MALLOC_ARENA_MAX"] == "2"
    assert "MALLOC_ARENA_MAX" not in ray_environment(WORKER, "t0ken", None)


def test_the_head_learns_of_the_pools_from_terraform() -> None:
    capacity = HEAD.capacity()
    assert capacity.pools["gpu-spot"].tier is Tier.SPOT and capacity.drain.drain_seconds == 105
    assert WORKER.capacity().pools == {}


def test_what_is_missing_is_fetched_largest_first() -> None:
    model = ModelFacts(name="tiny", s3_uri="s3://b/models/tiny")
    objects = [
        S3Object("models/tiny/config.json", 10),
        S3Object("models/tiny/a/w.safetensors", 99),
        S3Object("models/tiny/", 0),
        S3Object("models/tiny2/x", 1),
    ]
    plan = fetch_plan(model, objects, {"tiny/config.json": 10})
    assert [(str(f.path), f.num_bytes) for f in plan] == [("tiny/a/w.safetensors", 99)]
    assert [str(f.path) for f in fetch_plan(model, objects, {"tiny/config.json": 9})] == [
        "tiny/a/w.safetensors",
        "tiny/config.json",
    ]


@pytest.mark.parametrize(
    "key", ["models/tiny/../../etc/passwd", "models/tiny//x", "models/tiny/.ssh/key", "models/tiny/a b"]
)
def test_a_key_that_leaves_the_directory_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="refused to fetch"):
        fetch_plan(ModelFacts(name="tiny", s3_uri="s3://b/models/tiny"), [S3Object(key, 1)], {})


def test_a_model_name_is_no_path() -> None:
    with pytest.raises(ValidationError):
        ModelFacts(name="../tiny", s3_uri="s3://b/m")
