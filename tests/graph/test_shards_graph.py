"""`graphs.shards`: expert shards of another revision, beside a mesh that runs."""

from __future__ import annotations

from pathlib import Path

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


def test_another_name_is_another_model(tmp_path: Path) -> None:
    (tmp_path / "tiny-chat").mkdir()
    (tmp_path / "tiny-chat" / "config.json").write_text("{}")
    simulated = shards_config(ShardsOptions(simulated=True, name="small:chat")).experts
    assert (simulated.engine, simulated.model_name) == ("sim", "small:chat")
    on_cpu = shards_config(ShardsOptions(on_cpu=True, model=str(tmp_path / "tiny-chat"), shards=1)).experts
    assert (on_cpu.engine, on_cpu.device, on_cpu.model_name) == ("vllm", "cpu", "tiny-chat")
    assert on_cpu.model_path == str(tmp_path / "tiny-chat") and on_cpu.shards == 1
    with pytest.raises(ConfigError, match="no model"):
        shards_config(ShardsOptions(on_cpu=True, model=str(tmp_path)))
