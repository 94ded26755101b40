"""The papers keep up with the code: names, settings, links, and both READMEs the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from services import environment
from services.telemetry import names
from tests.architecture.sources import ROOT, sources

DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "requirements").glob("*.md")]
NOT_FOR_OPERATORS = {"EXPERTMESH_TEST_MARK"}


def test_every_metric_span_and_log_field_is_documented() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    spans = [value for name, value in vars(names.Span).items() if name.isupper()]
    wanted = [metric.name for metric in names.ALL_METRICS] + [step.value for step in names.Step] + spans
    wanted += names.LogLine.__struct_fields__
    assert [name for name in wanted if f"`{name}`" not in page] == []


def test_every_variable_of_the_environment_is_documented() -> None:
    page = (ROOT / "docs" / "settings.md").read_text()
    text = "".join(source.text for source in sources("services", "graphs", "load_tests"))
    text += (ROOT / "Makefile").read_text()
    used = set(re.findall(r"\bEXPERTMESH_[A-Z_]*[A-Z]\b", text)) - NOT_FOR_OPERATORS
    assert [name for name in sorted(used) if f"`{name}`" not in page] == []
    assert set(re.findall(r"^\| `(EXPERTMESH_\w+)`", page, re.MULTILINE)) <= environment.NAMES
    assert {name for name in environment.NAMES if f"`{name}`" not in page} == set()
    assert used - {"EXPERTMESH_"} <= environment.NAMES


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", path.read_text()):
        if "://" not in target:
            assert (path.parent / target).exists(), target


def test_both_readmes_show_the_same_commands() -> None:
    english, chinese = (
        re.findall(r"^(?:make|serve|ray|pip|export|expertmesh|curl|\$) ?[^#\n]*", text, re.MULTILINE)
        for text in ((ROOT / "README.md").read_text(), (ROOT / "README.zh-CN.md").read_text())
    )
    assert [line.strip() for line in english] == [line.strip() for line in chinese]


def test_the_life_of_a_request_names_at_most_seven_files() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    life = text.partition("## The life of a request")[2].partition("\n## ")[0]
    steps = re.findall(r"^\d\. \*\*\[([^\]]+)\]", life, re.MULTILINE)
    assert 0 < len(steps) <= 7
    assert all((ROOT / name).is_file() for name in steps)
