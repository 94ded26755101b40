"""Formatting, validation and `terraform test` (mock provider: no account, no network)."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.infra.terraform import (
    ENVIRONMENTS,
    MODULES,
    SOURCE,
    Terraform,
    copy_tree,
    find_provider,
    one_provider,
)


def test_format(tf_env: dict[str, str]) -> None:
    Terraform(SOURCE, tf_env).run("fmt", "-check", "-recursive", "-diff", "-no-color")


@pytest.fixture(scope="module")
def mockable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy whose secrets are plain: see stand_ins/secret."""
    tree = copy_tree(tmp_path_factory.mktemp("mockable"))
    shutil.copy(
        Path(__file__).parent / "stand_ins" / "secret" / "main.tf", tree / "modules" / "secret" / "main.tf"
    )
    return tree


@pytest.fixture(scope="module")
def mock_env(tf_env: dict[str, str]) -> Iterator[dict[str, str]]:
    """Mocks and `validate` need the provider's schema only, so that one process serves all modules where we find its program."""
    program = find_provider()
    if program is None:
        yield tf_env
        return
    with one_provider(program, tf_env) as reattach:
        yield {**tf_env, "TF_REATTACH_PROVIDERS": reattach}


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
