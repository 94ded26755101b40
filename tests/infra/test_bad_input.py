"""The mistakes that the issue names: each is one error, at plan time, in words that say what to do.

The values are those of the modules' own refusal runs; here they run without `expect_failures`, so that what an
operator would see can be counted and read.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.infra.terraform import ENVIRONMENTS, Terraform, from_above, runs_of

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


@pytest.fixture(scope="module")
def said(mockable: Path, mock_env: dict[str, str]) -> dict[str, list[str]]:
    """What Terraform says to each of these runs, each in a test file of its own: after a failure the rest of a file
    is left out."""
    (mockable / "mistakes").mkdir()
    for module, run, _ in MISTAKES:
        folder = ("environments/" if module in ENVIRONMENTS else "modules/") + module
        text = next((mockable / folder / "tests").glob("*.tftest.hcl")).read_text(encoding="utf-8")
        block = runs_of(mockable / folder)[run]
        block = re.sub(r"^  expect_failures = .*\n", "", block, flags=re.M)
        head = text[: text.index('\nrun "')]
        (mockable / "mistakes" / f"{run}.tftest.hcl").write_text(
            f"{head}\n{from_above(block, folder)}\n", encoding="utf-8"
        )
    terraform = Terraform(mockable, mock_env)
    terraform.run("init", "-no-color", "-input=false", "-backend=false", "-test-directory=mistakes")
    found: dict[str, list[str]] = {run: [] for _, run, _ in MISTAKES}
    for line in terraform.output("test", "-json", "-test-directory=mistakes").splitlines():
        message = json.loads(line)
        if message["type"] == "diagnostic" and message["diagnostic"]["severity"] == "error":
            found[message["@testrun"]].append(message["diagnostic"]["detail"])
    return found


@pytest.mark.parametrize(("run", "words"), [(run, words) for _, run, words in MISTAKES])
def test_a_mistake_is_one_error_that_says_what_to_do(
    run: str, words: str, said: dict[str, list[str]]
) -> None:
    assert len(said[run]) == 1, f"{run}: {len(said[run])} errors\n" + "\n".join(said[run])
    assert said[run][0].startswith(words), said[run][0]
