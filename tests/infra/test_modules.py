"""Formatting, validation and `terraform test` (mock provider: no account, no network).

All modules' tests run in one process, from a folder above them: each process reads the provider's schema anew, which
takes it longer than many a module's runs. dev and prod are validated by being planned (test_fake_aws.py).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from tests.infra.terraform import MODULES, SOURCE, Terraform, from_above, runs_of


def test_format(tf_env: dict[str, str]) -> None:
    Terraform(SOURCE, tf_env).run("fmt", "-check", "-recursive", "-diff", "-no-color")


def test_validate(mockable: Path, mock_env: dict[str, str]) -> None:
    """And the values of an environment: its own refusals."""
    terraform = Terraform(mockable / "environments" / "local", mock_env)
    terraform.init()
    terraform.run("validate", "-no-color")
    assert re.search(r"Success! \d+ passed, 0 failed", terraform.run("test", "-no-color"))


@pytest.fixture(scope="module")
def said(mockable: Path, mock_env: dict[str, str]) -> dict[str, tuple[Counter[str], str]]:
    """By module: how many of its runs ended how, and what Terraform had to say of them."""
    (mockable / "tests").mkdir()
    for module in MODULES:
        name = f"{module}.tftest.hcl"
        text = (mockable / "modules" / module / "tests" / name).read_text(encoding="utf-8")
        (mockable / "tests" / name).write_text(from_above(text, f"modules/{module}"), encoding="utf-8")
    terraform = Terraform(mockable, mock_env)
    terraform.init()
    ends = {module: Counter[str]() for module in MODULES}
    words = dict.fromkeys(MODULES, "")
    for line in terraform.output("test", "-json").splitlines():
        message = json.loads(line)
        module = Path(message.get("@testfile", "")).name.removesuffix(".tftest.hcl")
        if message["type"] == "test_run" and message["test_run"]["progress"] == "complete":
            ends[module][message["test_run"]["status"]] += 1
        elif message["type"] == "diagnostic" and module in words:
            found = message["diagnostic"]
            words[module] += f"{message.get('@testrun')}: {found['summary']}\n{found['detail']}\n"
    return {module: (ends[module], words[module]) for module in MODULES}


@pytest.mark.parametrize("module", MODULES)
def test_module(module: str, said: dict[str, tuple[Counter[str], str]]) -> None:
    ends, words = said[module]
    assert ends == {"pass": len(runs_of(SOURCE / "modules" / module))}, words[-2000:]
