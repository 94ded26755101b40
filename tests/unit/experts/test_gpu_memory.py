"""GPUs that are too small are named before anything starts; those that might do are left to vLLM."""

from __future__ import annotations

import pytest

from load_tests.bench.gpu_models import V2_LITE
from services.config import ExpertsConfig
from services.errors import ConfigError
from services.experts.gpu_memory import check_memory

GB = 1e9


def config(**more: object) -> ExpertsConfig:
    return ExpertsConfig.model_validate({"device": "cuda", "max_model_len": 8192, **more})


@pytest.mark.parametrize(
    ("settings", "gpu_gb"),
    [
        ({}, 80),
        ({"shards": 2}, 24),
        ({"tensor_parallel": 2}, 24),
        ({"quantization": "fp8"}, 24),
        ({"gpu_kv_cache_bytes": 10_000_000_000, "gpu_memory_utilization": 0.05}, 80),
        ({}, 0),  # not known
    ],
)
def test_what_may_fit_is_not_refused(settings: dict[str, object], gpu_gb: float) -> None:
    check_memory(config(**settings), V2_LITE, gpu_gb * GB)


@pytest.mark.parametrize(
    ("settings", "gpu_gb", "says"),
    [
        ({}, 24, r"are 32\.\d GB, and 21\.6 GB of a GPU here may be used: shards=2 would fit"),
        ({}, 16, "shards=4 would fit"),
        ({}, 4, "no number of shards up to 64 would; so might fewer bits"),
        ({"quantization": "fp8"}, 16, "shards=2 would fit"),
        ({"gpu_kv_cache_bytes": 60_000_000_000}, 80, "are 92"),
    ],
)
def test_what_cannot_fit_is_told_what_would(settings: dict[str, object], gpu_gb: float, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        check_memory(config(**settings), V2_LITE, gpu_gb * GB)


def test_the_files_say_how_many_bits_a_weight_has() -> None:
    check_memory(config(), V2_LITE, 16 * GB, weight_bytes=9 * GB)
    with pytest.raises(ConfigError):
        check_memory(config(), V2_LITE, 16 * GB, weight_bytes=31 * GB)
