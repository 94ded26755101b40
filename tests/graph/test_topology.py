"""The diagram in the README is the graph that is built; dev, sim and prod differ in values only."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import ray
from ray.serve import Application

import graphs
from graphs.profiles import DevOptions, ProdOptions, SimOptions, dev_config, prod_config, sim_config
from services.errors import ConfigError
from services.gateway import json_key_store

ROOT = Path(__file__).resolve().parents[2]
READMES = ("README.md", "README.zh-CN.md")


def built_edges(application: Application) -> set[tuple[str, str]]:
    """(who holds a handle, to whom) of a bound graph."""
    bound = application._bound_deployment
    edges: set[tuple[str, str]] = set()
    for argument in (*bound.init_args, *bound.init_kwargs.values()):
        if isinstance(argument, Application):
            edges.add((bound.name, argument._bound_deployment.name))
            edges |= built_edges(argument)
    return edges


def drawn_edges(text: str) -> set[tuple[str, str]]:
    """Edges of the first mermaid block that are marked `%% handles`."""
    block = re.search(r"```mermaid\n(.*?)```", text, re.DOTALL)
    assert block, "no mermaid block"
    handles = block.group(1).partition("%% handles")[2]
    found = re.findall(r"^\s*(\w+)(?:\[[^\]]*\])?\s*-->(?:\|[^|]*\|)?\s*(\w+)", handles, re.MULTILINE)
    return set(found)


@pytest.mark.parametrize("readme", READMES)
def test_the_readme_draws_what_is_built(readme: str) -> None:
    application = graphs.sim(SimOptions())
    assert drawn_edges((ROOT / readme).read_text()) == built_edges(application)


def test_building_touches_no_cluster() -> None:
    graphs.sim(SimOptions())
    graphs.dev(DevOptions())
    assert not ray.is_initialized()


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(ValueError, match="shrads"):
        SimOptions.model_validate({"shrads": "2"})


def weights(folder: Path, **more: object) -> None:
    """A folder that looks like a model of eight experts."""
    config = {"num_attention_heads": 8, "num_local_experts": 8, "max_position_embeddings": 32_768, **more}
    (folder / "config.json").write_text(json.dumps(config))
    header = b"{}"
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)


def test_prod_checks_the_model_before_any_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is one error, raised while the graph is built: nothing was started that could be left running."""
    monkeypatch.setattr("graphs.host_gpus.num_gpus", lambda: 2)
    weights(tmp_path)

    def refusal(**options: str) -> str:
        with pytest.raises(ConfigError) as caught:
            prod_config(ProdOptions.model_validate({"model": str(tmp_path), **options}))
        return str(caught.value)

    assert "8 experts do not spread over 3 ranks: shards=1, 2, 4 or 8 would" in refusal(shards="3")
    assert "4 GPUs are wanted" in refusal(shards="2", groups="2")
    assert "tensor_parallel=3 does not divide" in refusal(tensor_parallel="3")
    assert "ends at 32768 tokens" in refusal(max_model_len="65536")
    with pytest.raises(ValueError, match="quantization"):
        ProdOptions.model_validate({"quantization": "fp5"})
    assert "nowhere is no folder" in refusal(adapters=str(tmp_path / "nowhere"))
    shape = {"hidden_size": 4096, "num_hidden_layers": 32, "vocab_size": 32_000, "intermediate_size": 14_336}
    monkeypatch.setattr("graphs.host_gpus.gpu_bytes", lambda: 24e9)
    (tmp_path / "mixtral").mkdir()
    weights(tmp_path / "mixtral", **shape)
    small = refusal(model=str(tmp_path / "mixtral"), dummy_weights="true")
    assert "21.6 GB of a GPU here may be used: shards=8 would fit" in small
    (tmp_path / "model.safetensors").write_bytes(b"cut")
    assert "model.safetensors is damaged" in refusal()
    (tmp_path / "model.safetensors").unlink()
    assert "holds no .safetensors file" in refusal()
    weights(tmp_path, quantization_config={"quant_method": "zip"})
    assert "'zip', which is unknown here" in refusal()


def test_prod_names_what_the_host_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EXPERTMESH_MODEL", "EXPERTMESH_REDIS_URL", "EXPERTMESH_KEYS_FILE", "EXPERTMESH_SHARDS"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="no weights"):
        prod_config(ProdOptions())
    weights(tmp_path)
    model = {"model": str(tmp_path), "remote_gpus": "true"}
    with pytest.raises(ConfigError, match="no Redis"):
        prod_config(ProdOptions.model_validate(model))
    keys_file = tmp_path / "keys.json"
    more = {**model, "redis_url": "redis://redis:6379/0", "keys_file": str(keys_file)}
    with pytest.raises(ConfigError, match="no API keys"):
        prod_config(ProdOptions.model_validate(more))
    json_key_store.add(keys_file, "k" * 32, key_id="ops", tenant="ops")
    config = prod_config(ProdOptions.model_validate({**more, "shards": "4"}))
    assert config.experts.shards == 4
    assert config.experts.device == "cuda"


def test_profiles_differ_in_values_only() -> None:
    dev, sim = dev_config(DevOptions()), sim_config(SimOptions())
    assert type(dev) is type(sim)
    assert set(dev.model_dump()) == set(sim.model_dump())


def test_dev_and_sim_serve_adapters_from_a_folder_that_is_there(tmp_path: Path) -> None:
    there, missing = str(tmp_path), str(tmp_path / "missing")
    assert dev_config(DevOptions(adapters=there)).experts.adapters == there
    assert sim_config(SimOptions(adapters=there)).experts.adapters == there
    with pytest.raises(ConfigError, match="no folder"):
        dev_config(DevOptions(adapters=missing))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"redis_url": "127.0.0.1:6379"}, "EXPERTMESH_REDIS_URL"),
        ({"semantic_model": "bert"}, "EXPERTMESH_SEMANTIC_MODEL.*'bert'"),
        ({"blocked_words_file": "/nowhere/words"}, "the word list /nowhere/words cannot be read"),
        ({"model": "fast"}, "no model: fast"),
        ({"model": "/nowhere"}, "no model: /nowhere"),
    ],
)
def test_what_is_wrong_with_a_setting_is_said_before_anything_starts(
    options: dict[str, str], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        dev_config(DevOptions.model_validate(options))


def test_a_folder_of_weights_and_a_list_of_words_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights(tmp_path)
    (tmp_path / "words").write_text("secret\n")
    monkeypatch.chdir(tmp_path)
    config = dev_config(DevOptions(model=str(tmp_path), blocked_words_file="words"))
    assert config.experts.model_path == str(tmp_path)
    assert config.postprocess.blocked_words_file == str(tmp_path / "words")


def test_prices_reach_the_queue_and_nonsense_is_one_line() -> None:
    queue = sim_config(SimOptions(prices="spot@spot=1.2/3.67,*=2", currency="CNY")).queue
    assert [(one.name, one.per_hour, one.list_per_hour) for one in queue.prices] == [
        ("spot@spot", 1.2, 3.67),
        ("*", 2.0, 0.0),
    ]
    assert queue.currency == "CNY"
    for wrong in ({"prices": "spot"}, {"currency": "usd"}, {"currency": "EURO"}):
        with pytest.raises(ConfigError):
            sim_config(SimOptions(**wrong))
