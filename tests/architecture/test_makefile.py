"""What `make test` says to CI: zero when all passed, and what failed as its last words."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STAMP = ".venv/.stamps/dev"


def make_test(python: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """`make test` in which `python` stands for the environment's; nothing is installed."""
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\n{python}\n")
    script.chmod(0o755)
    command = ["make", "-o", STAMP, "test", f"PY={script}", "ARGS=none"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_all_passed_is_zero(tmp_path: Path) -> None:
    ended = make_test("echo 1 passed", tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize("status", [1, 5])
def test_a_failure_is_not_and_is_said_last(status: int, tmp_path: Path) -> None:
    ended = make_test(f"echo '= short test summary info ='; echo 'FAILED a_test'; exit {status}", tmp_path)
    assert ended.returncode != 0
    assert ended.stdout.splitlines()[-1] == "FAILED a_test"
