"""The records of processing (GDPR Art. 30) name every module that keeps data, and say what the code says."""

from __future__ import annotations

import re
from typing import Any

from services.erasure.places import NOTHING_OF_PERSONS, PLACES, Name, table
from tests.architecture.sources import ROOT

KEEPS = re.compile(
    r"(^|_)(store|log|logs|shelf|tier|lru|book|writer|index|meanings|vectors|flight|flights|penalty|doorman|quotas|prefix|lengths)$"
)


def keeping() -> set[str]:
    """Modules that keep something, by their names."""
    services = ROOT / "services"
    return {
        path.relative_to(services).as_posix()
        for path in services.rglob("*.py")
        if KEEPS.search(path.stem) and "twin" not in path.parts
    }


def test_every_module_that_keeps_data_is_in_the_records() -> None:
    listed = {module for place in PLACES for module in place.modules} | set(NOTHING_OF_PERSONS)
    assert sorted(keeping() - listed) == [], (
        "say in services/erasure/places.py what it keeps, or that it is nobody's"
    )
    assert [name for name in sorted(listed) if not (ROOT / "services" / name).is_file()] == []


def test_every_place_is_described_once() -> None:
    assert sorted(place.name for place in PLACES) == sorted(Name)
    for place in PLACES:
        values = (
            place.data,
            place.where,
            place.purpose,
            place.until,
            place.sealed,
            place.settings,
            place.modules,
        )
        assert all(values), place.name


def test_the_page_is_what_the_code_says() -> None:
    page = (ROOT / "docs" / "processing-records.md").read_text()
    assert table() in page, "put the output of `python -m services.erasure.places` there"


def test_every_setting_that_is_named_exists() -> None:
    from services.config import GraphConfig

    for place in PLACES:
        for name in re.findall(
            r"`((?:cache|journal|conversations|gateway)\.[a-z_.]+)`", place.settings + place.until
        ):
            model: Any = GraphConfig
            for part in name.split("."):
                assert part in model.model_fields, name
                model = model.model_fields[part].annotation
