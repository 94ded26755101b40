"""checkov over the whole tree: at least 95% of what is not skipped passes. What is skipped says why, in the resource:
`# checkov:skip=CHECK:reason`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

LEAST_RATE = 0.95
MOST_SKIPPED = 12


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, tree: Path) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("checkov")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "checkov.main",
            "--directory",
            str(tree),
            "--framework",
            "terraform",
            "--skip-path",
            "tests",
            "--output",
            "json",
            "--compact",
            "--soft-fail",
            "--skip-download",
            "--skip-results-upload",
        ],
        capture_output=True,
        text=True,
        timeout=420,
        check=False,
        cwd=out,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout)
    return said[0] if isinstance(said, list) else said


def test_rate(report: dict[str, Any]) -> None:
    summary, failed = report["summary"], report["results"]["failed_checks"]
    assert summary["parsing_errors"] == 0
    rate = summary["passed"] / (summary["passed"] + len(failed))
    print(
        f"checkov: {summary['passed']} passed, {len(failed)} failed ({rate:.1%}), {summary['skipped']} skipped"
    )
    assert summary["passed"] > 200
    assert rate >= LEAST_RATE, sorted({f"{c['check_id']} {c['resource']}" for c in failed})


def test_what_is_skipped_says_why(report: dict[str, Any]) -> None:
    skipped = report["results"]["skipped_checks"]
    # A resource with for_each counts once for each of its instances.
    assert (
        0 < len({(c["check_id"], c["file_path"], c["file_line_range"][0]) for c in skipped}) <= MOST_SKIPPED
    )
    for check in skipped:
        reason = check["check_result"]["suppress_comment"]
        assert len(reason) > 30, f"{check['check_id']} on {check['resource']}: {reason!r} is no reason"
