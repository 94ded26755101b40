"""vLLM's refusals, as it words them, become errors that name what to do."""

from __future__ import annotations

from services.experts.refusals import explained

REMOTE_CODE = (
    "The repository /models/odd contains custom code which must be executed to correctly load the model. You can "
    "inspect the repository content at /models/odd.\n You can inspect the repository content at https://hf.co/.\n"
    "Please pass the argument `trust_remote_code=True` to allow custom code to be run."
)
MEMORY = (
    "Free memory on device cuda:0 (10.1/79.2 GiB) on startup is less than desired GPU memory utilization "
    "(0.9, 71.3 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes."
)


def test_remote_code_is_refused_without_advice_to_allow_it() -> None:
    assert "none is run here" in explained(REMOTE_CODE)
    assert "trust_remote_code" not in explained(REMOTE_CODE)


def test_a_gpu_in_use_is_called_so() -> None:
    assert explained(MEMORY).startswith(
        "another process holds the GPU's memory: Free memory on device cuda:0"
    )


def test_anything_else_stays_as_vllm_said_it() -> None:
    assert explained("max_model_len is too big") == "max_model_len is too big"
