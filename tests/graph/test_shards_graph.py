"""`graphs.shards`: expert shards of another revision, beside a mesh that runs."""

from __future__ import annotations

import pytest

import graphs
from graphs.profiles import ShardsOptions, SimOptions, shards_config, sim_config
from services.errors import ConfigError


def test_the_other_revision_serves_the_same_model() -> None:
    green = shards_config(ShardsOptions(simulated=True, groups=3, revision="v2")).experts
    blue = sim_config(SimOptions(revision="v1")).experts
    assert (green.model_name, green.revision, green.groups) == (blue.model_name, "v2", 3)


def test_it_is_one_deployment_that_finds_the_queue_by_the_name_of_its_mesh() -> None:
    app = graphs.shards(ShardsOptions(simulated=True, revision="v2", mesh="blue"))
    bound = app._bound_deployment  # type: ignore[reportPrivateUsage]
    assert bound.name == "ExpertShards" and bound.init_args[1] == "blue"


def test_weights_are_as_necessary_as_in_prod() -> None:
    with pytest.raises(ConfigError, match="no weights"):
        shards_config(ShardsOptions(model=""))
