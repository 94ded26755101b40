"""Only a deployment.py imports Ray; only a file named after a technology imports it; the rest is pure."""

from __future__ import annotations

import statistics
import subprocess
import sys

from tests.architecture.sources import HEAVY, ROOT, may_import, names_a_technology, sources

MAX_LINES = 300
MIN_PURE_SHARE = 0.6
LARGER: dict[str, str] = {}
"""Files over the line, each with its reason; new ones are cut instead."""

IMPORT_WITH_BLOCKER = """
import importlib, sys
blocked, modules = set(sys.argv[1].split(",")), sys.argv[2].split(",")
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ImportError(f"{name} is blocked: a pure module may not need it")
sys.meta_path.insert(0, Blocker())
failed = []
for module in modules:
    try:
        importlib.import_module(module)
    except ImportError as error:
        failed.append(f"{module}: {error}")
print("\\n".join(failed))
"""


def test_a_technology_is_imported_only_by_files_named_after_it() -> None:
    wrong = [
        f"{source.name} imports {package}"
        for source in sources()
        for package in sorted(source.imports(lazy=True))
        if not may_import(source, package)
    ]
    assert not wrong, "\n".join(wrong)


def test_pure_modules_import_where_no_technology_is_installed() -> None:
    everything = sources()
    pure = [source for source in everything if not names_a_technology(source)]
    result = subprocess.run(
        [
            sys.executable,
            "-c",
            IMPORT_WITH_BLOCKER,
            ",".join(HEAVY),
            ",".join(one.module for one in pure),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert not result.stdout.strip(), result.stdout
    pure_lines = sum(source.num_lines for source in pure)
    share = pure_lines / sum(source.num_lines for source in everything)
    assert share >= MIN_PURE_SHARE, f"{share:.0%} of the code is pure"


def test_files_stay_small() -> None:
    too_long = {
        source.name: source.num_lines
        for source in sources()
        if source.num_lines > MAX_LINES and source.name not in LARGER
    }
    assert not too_long, f"over {MAX_LINES} lines: {too_long}"


def house_figures() -> str:
    """The figures that docs/architecture.md quotes; conftest prints them after every run."""
    everything = sources()
    lines = [source.num_lines for source in everything]
    pure_lines = sum(source.num_lines for source in everything if not names_a_technology(source))
    test_lines = sum(source.num_lines for source in sources("tests"))
    largest = max(everything, key=lambda source: source.num_lines)
    return (
        f"{len(lines)} files, median {statistics.median(lines):.0f} lines, largest {largest.num_lines} "
        f"({largest.name}); {pure_lines / sum(lines):.0%} pure; tests to code {test_lines / sum(lines):.2f}"
    )
