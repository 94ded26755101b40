"""Settings are checked before anything starts, and the error says what would fit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.config import ExpertsConfig
from services.errors import ConfigError
from services.experts.groups import (
    RankPlace,
    bundle,
    check,
    check_gpus,
    environment,
    num_experts,
    split_cores,
)

MIXTRAL = {
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "num_local_experts": 8,
    "max_position_embeddings": 8192,
}


@given(st.sets(st.integers(0, 200), min_size=1, max_size=32), st.integers(1, 32))
def test_every_rank_gets_cores_of_its_own(cores: set[int], ranks: int) -> None:
    if ranks > len(cores):
        with pytest.raises(ConfigError, match=f"EXPERTMESH_SHARDS={len(cores)}"):
            split_cores(sorted(cores), ranks)
        return
    shares = split_cores(sorted(cores), ranks)
    given_out = [core for share in shares for core in share]
    assert len(given_out) == len(set(given_out))
    assert set(given_out) <= cores
    assert {len(share) for share in shares} == {len(cores) // ranks}


@pytest.mark.parametrize("shards", [1, 2, 4, 8])
def test_what_divides_is_accepted(shards: int) -> None:
    check(ExpertsConfig(shards=shards), MIXTRAL)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"shards": 3}, "shards=1, 2, 4 or 8 would"),
        ({"shards": 16}, "shards=1, 2, 4 or 8 would"),
        ({"tensor_parallel": 2}, "1, 3 or 9 would"),
        ({"max_model_len": 9000}, "ends at 8192 tokens"),
    ],
)
def test_what_does_not_fit_is_told_what_would(changed: dict[str, int], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        check(ExpertsConfig(**changed), MIXTRAL)


def test_a_dense_model_has_no_experts_to_spread() -> None:
    dense = {key: value for key, value in MIXTRAL.items() if key != "num_local_experts"}
    assert num_experts(dense) == 0
    check(ExpertsConfig(shards=1), dense)
    with pytest.raises(ConfigError, match="raise groups"):
        check(ExpertsConfig(shards=2), dense)


def test_experts_are_found_under_every_architectures_name() -> None:
    assert num_experts({"n_routed_experts": 256}) == 256
    assert num_experts({"num_experts": 128}) == 128


def test_a_pinned_rank_says_so_in_its_environment() -> None:
    env = environment(ExpertsConfig(), RankPlace(1, 2, cores=(2, 3)))
    assert (env["VLLM_CPU_OMP_THREADS_BIND"], env["OMP_NUM_THREADS"]) == ("2,3", "2")
    assert "VLLM_CPU_OMP_THREADS_BIND" not in environment(ExpertsConfig(device="cuda"), RankPlace(cores=(0,)))
    assert all(
        environment(ExpertsConfig(), RankPlace())[key] == "1"
        for key in ("HF_HUB_OFFLINE", "VLLM_NO_USAGE_STATS")
    )


def test_a_gpu_rank_holds_as_many_gpus_as_it_is_parallel() -> None:
    assert bundle(ExpertsConfig(device="cuda", tensor_parallel=4))["GPU"] == 4
    assert "GPU" not in bundle(ExpertsConfig())


@pytest.mark.parametrize(
    ("wanted", "gpus", "says"),
    [
        ({"groups": 2, "shards": 2}, 2, "4 GPUs are wanted .* this host has 2: groups=1 would fit"),
        ({"shards": 8}, 4, "shards=4 would be as many"),
        ({"shards": 2, "tensor_parallel": 4}, 2, "a rank alone wants tensor_parallel=4"),
    ],
)
def test_too_few_gpus_are_told_what_would_fit(wanted: dict[str, int], gpus: int, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        check_gpus(ExpertsConfig(device="cuda", **wanted), gpus)
    check_gpus(ExpertsConfig(device="cuda", **wanted), 16)


@pytest.mark.parametrize(
    ("quantization", "method", "says"),
    [("", "gguf2", "'gguf2', which is unknown here; known are awq,"), ("fp8", "gptq", "are gptq already")],
)
def test_a_quantisation_that_cannot_be_read(quantization: str, method: str, says: str) -> None:
    config = ExpertsConfig(device="cuda", quantization=quantization)
    with pytest.raises(ConfigError, match=says):
        check(config, {**MIXTRAL, "quantization_config": {"quant_method": method}})


def test_known_quantised_weights_are_taken() -> None:
    check(ExpertsConfig(device="cuda"), {**MIXTRAL, "quantization_config": {"quant_method": "fp8"}})
