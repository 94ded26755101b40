"""DeepSeek's architectures on a CPU, tiny and random, in float32: vLLM says what transformers says.

Logprobs agree to 1e-5 (measured: 1e-6), in prefill (plain attention) and in decoding (the latent's own kernel), with
plain and with scaled positions. A head, an expert or a scale that is wrong is off by 1e-2 and more.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from services.child_environment import child_environment

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def said() -> dict[str, dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.cluster.deepseek_probe"], cwd=ROOT, capture_output=True, text=True, timeout=300,
        check=False, env=child_environment(),
    )  # fmt: skip
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(lines) == 3, done.stderr[-3000:]
    return {line["model"]: line for line in lines}


@pytest.mark.parametrize("model", ["V2", "V2, scaled positions", "V3"])
def test_vllm_says_what_transformers_says(said: dict[str, dict[str, Any]], model: str) -> None:
    found = said[model]
    print(found)
    assert found["spread"] > 0.1, "logprobs that are all alike would prove nothing"
    assert found["prompt"] < 1e-5
    assert found["generated"] < 1e-5
    assert found["same_tokens"]
