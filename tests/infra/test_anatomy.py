"""Every module has one anatomy; every variable is typed, described and validated; every refusal is tested."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.infra.terraform import ENVIRONMENTS, MODULES, SOURCE

_VARIABLE = re.compile(r'^variable "(\w+)" \{\n(.*?)^\}', re.M | re.S)
_OUTPUT = re.compile(r'^output "(\w+)" \{\n(.*?)^\}', re.M | re.S)
ISSUE_MODULES = {
    "network",
    "kms",
    "iam",
    "security",
    "storage",
    "redis",
    "node_pool",
    "spot_events",
    "edge",
    "observability",
    "ray_cluster",
}
FOLDERS = [SOURCE / "modules" / m for m in MODULES] + [SOURCE / "environments" / e for e in ENVIRONMENTS]


def test_all_modules_are_there() -> None:
    assert set(MODULES) >= ISSUE_MODULES
    assert ENVIRONMENTS == ["dev", "local", "prod"]


@pytest.mark.parametrize("module", MODULES)
def test_module_anatomy(module: str) -> None:
    folder = SOURCE / "modules" / module
    for part in ("main.tf", "variables.tf", "outputs.tf", "versions.tf", "README.md"):
        assert (folder / part).is_file(), f"{module} lacks {part}"
    assert (folder / "tests" / f"{module}.tftest.hcl").is_file()


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda f: f.name)
def test_variables_are_typed_described_and_validated(folder: Path) -> None:
    found = [v for path in folder.glob("*.tf") for v in _VARIABLE.findall(path.read_text(encoding="utf-8"))]
    assert found
    for name, body in found:
        assert re.search(r"^  type\s+=", body, re.M), f"{name} has no type"
        assert re.search(r'^  description\s+= ".{12,}"', body, re.M), f"{name} has no description"
        boolean = re.search(r"^  type\s+= bool$", body, re.M)
        assert boolean or "validation {" in body, f"{name} is not validated"
        for message in re.findall(r'error_message = "(.*)"', body):
            assert re.match(r"(Set|Give|List|Name|Write|Lower|Begin|Point|Remove) ", message), (
                f"{name}: say what to do: {message}"
            )


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda f: f.name)
def test_outputs_are_described(folder: Path) -> None:
    for name, body in _OUTPUT.findall((folder / "outputs.tf").read_text(encoding="utf-8")):
        assert "description" in body, f"output {name} of {folder.name} is not described"


@pytest.mark.parametrize("module", MODULES)
def test_every_validation_has_a_refusal_test(module: str) -> None:
    folder = SOURCE / "modules" / module
    tests = "".join(p.read_text(encoding="utf-8") for p in (folder / "tests").glob("*.tftest.hcl"))
    refused = [
        name
        for named in re.findall(r"expect_failures\s*=\s*\[(.*?)\]", tests, re.S)
        for name in re.findall(r"var\.(\w+)", named)
    ]
    for name, body in _VARIABLE.findall((folder / "variables.tf").read_text(encoding="utf-8")):
        validations = body.count("validation {")
        assert refused.count(name) >= validations, (
            f"{module}: {name} has {validations} validations, and {refused.count(name)} of them are tested"
        )


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_lock_files_hold_every_platform(environment: str) -> None:
    lock = (SOURCE / "environments" / environment / ".terraform.lock.hcl").read_text(encoding="utf-8")
    assert 'version     = "5.100.0"' in lock
    assert len(re.findall(r'"zh:[0-9a-f]{64}"', lock)) >= 12 and '"h1:' in lock


def test_no_policy_allows_every_action() -> None:
    for path in SOURCE.rglob("*.tf"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r'Action\s*=\s*\[?"\*"', text), f"{path.name} allows every action"


def test_environments_hold_values_only() -> None:
    for environment in ENVIRONMENTS:
        text = (SOURCE / "environments" / environment / "main.tf").read_text(encoding="utf-8")
        assert "resource " not in text and " ? " not in text, (
            f"{environment} decides something; modules do that"
        )


def test_readmes_list_every_input_and_output() -> None:
    done = subprocess.run(
        [sys.executable, str(SOURCE.parent / "module_docs.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
