"""checkov over the whole tree: at least 95% pass, and each exception has its reason here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

# Checks that we do not follow, and why. They count as neither passed nor failed; everything else must pass
# or lower the rate below.
SKIPPED = {
    "CKV_AWS_144": "replication is in replica.tf, on buckets in a for_each that checkov does not join; tests/infra asserts it",
    "CKV2_AWS_62": "nobody listens to bucket events: the mesh finds weights and logs by name",
}
LEAST_RATE = 0.95


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, tree: Path) -> dict[str, object]:
    out = tmp_path_factory.mktemp("checkov")
    done = subprocess.run(
        [
            sys.executable, "-m", "checkov.main", "--directory", str(tree), "--framework", "terraform", "--skip-path", "tests",
            "--skip-check", ",".join(SKIPPED), "--output", "json", "--quiet", "--compact", "--soft-fail", "--skip-download",
            "--skip-results-upload",
        ],
        capture_output=True, text=True, timeout=420, check=False, cwd=out,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout)
    return said[0] if isinstance(said, list) else said


def test_rate(report: dict[str, object]) -> None:
    summary = report["summary"]
    assert isinstance(summary, dict)
    passed, failed = int(summary["passed"]), int(summary["failed"])
    results = report["results"]
    assert isinstance(results, dict)
    names = sorted({f"{c['check_id']} {c['resource']}" for c in results["failed_checks"]})
    rate = passed / (passed + failed)
    print(f"checkov: {passed} passed, {failed} failed ({rate:.1%}); skipped with a reason: {', '.join(sorted(SKIPPED))}")
    assert passed > 300 and rate >= LEAST_RATE, "\n".join(names)
    assert int(summary["parsing_errors"]) == 0


def test_each_exception_has_a_reason() -> None:
    assert all(len(reason) > 30 for reason in SKIPPED.values())
