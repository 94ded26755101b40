"""Formatting, validation and `terraform test` (mock provider: no account, no network)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.infra.terraform import ENVIRONMENTS, MODULES, SOURCE, Terraform


def test_format(tf_env: dict[str, str]) -> None:
    Terraform(SOURCE, tf_env).run("fmt", "-check", "-recursive", "-diff", "-no-color")


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_validate(environment: str, tree: Path, mock_env: dict[str, str]) -> None:
    terraform = Terraform(tree / "environments" / environment, mock_env)
    terraform.init()
    terraform.run("validate", "-no-color")


@pytest.mark.parametrize("module", MODULES)
def test_module(module: str, mockable: Path, mock_env: dict[str, str]) -> None:
    terraform = Terraform(mockable / "modules" / module, mock_env)
    terraform.init()
    said = terraform.run("test", "-no-color")
    passed = re.search(r"Success! (\d+) passed, 0 failed", said)
    assert passed, said[-2000:]
    print(f"{module}: {passed[1]} runs")


def test_values_of_an_environment(mockable: Path, mock_env: dict[str, str]) -> None:
    terraform = Terraform(mockable / "environments" / "local", mock_env)
    terraform.init()
    assert re.search(r"Success! \d+ passed, 0 failed", terraform.run("test", "-no-color"))
