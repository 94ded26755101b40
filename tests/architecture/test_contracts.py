"""Who may know whom (import contracts of pyproject.toml), and what no file may say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.architecture.sources import ROOT

BIN = Path(sys.executable).parent
MACHINE_PATHS = re.compile(r"(?<![\w./~-])/(?:work|root|opt)/\w")
REGISTRY_HOSTS = re.compile("pypi" + r"\.org|files\." + "pythonhosted")
EXPORTED = (".md", ".py", ".toml", ".txt", ".yaml", ".yml", ".json", ".tf", ".proto", ".mk", ".sh", ".in")


def tracked() -> list[Path]:
    """Files that git knows, or would add."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [path for name in listed.stdout.splitlines() if (path := ROOT / name).is_file()]


def test_import_contracts_hold() -> None:
    result = subprocess.run(
        [BIN / "lint-imports", "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr


def test_ruff_has_nothing_to_say() -> None:
    """Except about long lines, which are `make lint`'s business: a long sentence breaks nothing."""
    result = subprocess.run(
        [BIN / "ruff", "check", "--no-cache", "--ignore", "E501,RUF100", "--output-format", "concise", "."],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout


def test_no_file_names_a_machine_or_a_registry() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in tracked()
        if path.suffix in EXPORTED or path.name in ("Makefile", "run")
        for pattern in (MACHINE_PATHS, REGISTRY_HOSTS)
        for match in pattern.finditer(path.read_text(errors="replace"))
    ]
    assert not wrong, "\n".join(wrong)
