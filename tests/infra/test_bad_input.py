"""The mistakes that the issue names: each is one error, at plan time, in words that say what to do.

The values are those of the modules' own refusal runs; here they run without `expect_failures`, so that what an
operator would see can be counted and read.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.infra.terraform import ENVIRONMENTS, TIMEOUT_S, Terraform

# module or environment, run of its tests, what the error says
MISTAKES = [
    ("node_pool", "vip_with_spot", "Set capacity.on_demand_percentage to 100: pools of tier vip"),
    ("node_pool", "min_over_max", "Set capacity.min_size between 0 and capacity.max_size"),
    ("node_pool", "spot_in_one_zone", "Give a spot pool subnet_ids in 2 or more zones"),
    ("node_pool", "spot_of_one_type", "Give a spot pool 10 or more instance_types"),
    ("node_pool", "efa_over_two_subnets", "Give a pool with EFA exactly one zone"),
    ("node_pool", "drain_over_110", "Set drain.drain_seconds between 20 and 110"),
    ("node_pool", "graceful_over_drain", "Set drain.graceful_shutdown_timeout_s below drain.drain_seconds"),
    ("network", "one_zone", "Give 2 to 4 availability_zones"),
    ("network", "cidr_nonsense", "Set cidr to a valid IPv4 network address"),
    ("local", "region_nonsense", "Set region to an AWS region"),
    ("edge", "rate_per_key_under_10", "Set rate_limits.per_key to 10 or more"),
]


def errors_of(folder: Path, env: dict[str, str], runs: list[str]) -> dict[str, list[str]]:
    """What Terraform says to each of these runs, each in a test file of its own."""
    source = next((folder / "tests").glob("*.tftest.hcl")).read_text(encoding="utf-8")
    head = source[: source.index('\nrun "')]
    (folder / "mistakes").mkdir()
    for run in runs:
        block = re.search(rf'^run "{run}" \{{\n.*?^\}}$', source, re.M | re.S)
        assert block, f"no run {run}"
        text = re.sub(r"^  expect_failures = .*\n", "", block[0], flags=re.M)
        (folder / "mistakes" / f"{run}.tftest.hcl").write_text(f"{head}\n{text}\n", encoding="utf-8")
    terraform = Terraform(folder, env)
    terraform.run("init", "-no-color", "-input=false", "-backend=false", "-test-directory=mistakes")
    done = subprocess.run(
        ["terraform", "test", "-json", "-test-directory=mistakes"],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    said: dict[str, list[str]] = {run: [] for run in runs}
    for line in done.stdout.splitlines():
        message = json.loads(line)
        if message["type"] == "diagnostic" and message["diagnostic"]["severity"] == "error":
            said[message["@testrun"]].append(message["diagnostic"]["detail"])
    return said


@pytest.mark.parametrize("module", sorted({module for module, _, _ in MISTAKES}))
def test_a_mistake_is_one_error_that_says_what_to_do(
    module: str, mockable: Path, mock_env: dict[str, str]
) -> None:
    wanted = {run: words for of, run, words in MISTAKES if of == module}
    folder = mockable / ("environments" if module in ENVIRONMENTS else "modules") / module
    said = errors_of(folder, mock_env, list(wanted))
    for run, words in wanted.items():
        assert len(said[run]) == 1, f"{run}: {len(said[run])} errors\n" + "\n".join(said[run])
        assert said[run][0].startswith(words), said[run][0]
