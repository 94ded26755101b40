"""`graphs.capacity`: the pool controller beside the mesh, from what Terraform says of the pools."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import graphs
from graphs.profiles import CapacityOptions, capacity_config
from services.config_capacity import ScaleConfig, Tier
from services.errors import ConfigError

FACTS = {
    "cluster": "mesh",
    "pool": "head",
    "tier": "head",
    "asg": "mesh-head",
    "region": "eu-central-1",
    "head_host": "head.mesh.internal",
    "gcs_port": 6380,
    "ray_token_secret_arn": "arn:token",
    "hooks": {"join": "join", "drain": "drain"},
    "drain_seconds": 105,
    "graceful_shutdown_timeout_s": 40,
    "node_events_queue_url": "https://sqs.invalid/q",
    "pools": json.dumps({"spot": {"asg": "mesh-spot", "tier": "spot", "min_size": 1, "max_size": 4}}),
}


def told(folder: Path, **facts: object) -> CapacityOptions:
    (folder / "node.json").write_text(json.dumps(FACTS | facts))
    return CapacityOptions(facts=str(folder / "node.json"))


def test_pools_and_queue_come_from_the_facts(tmp_path: Path) -> None:
    config = capacity_config(told(tmp_path))
    assert config.pools["spot"].tier is Tier.SPOT and config.pools["spot"].asg == "mesh-spot"
    assert (config.region, config.node_events_queue_url) == ("eu-central-1", "https://sqs.invalid/q")


def test_how_pools_follow_demand_is_said_on_the_command_line(tmp_path: Path) -> None:
    options = told(tmp_path).model_copy(update={"mesh": "blue", "target_load": 0.5, "scale_in_hold_s": 60.0})
    config = capacity_config(options)
    assert (config.mesh, config.scale.target_load, config.scale.scale_in_hold_s) == ("blue", 0.5, 60.0)
    assert capacity_config(told(tmp_path)).scale == ScaleConfig()


def test_it_is_bound_to_the_head(tmp_path: Path) -> None:
    deployment = graphs.capacity(told(tmp_path))._bound_deployment
    assert deployment.ray_actor_options["label_selector"] == {"expertmesh.io/tier": "head"}


def test_elsewhere_it_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="runs on the head"):
        capacity_config(told(tmp_path, tier="spot"))
    with pytest.raises(ConfigError, match=r"does not say what this node is"):
        capacity_config(CapacityOptions(facts=str(tmp_path / "absent.json")))
