"""A policy in one file, as docs/queue-policies.md tells: the example of the page goes into a file, is named, serves."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from graphs.profiles import SimOptions, sim_config
from services.config import QueueConfig
from services.errors import ConfigError
from services.link.messages import Grant, Release
from services.queue import ordering
from services.queue.events import FromGateway, ToGateway
from tests.unit.queue.making import NOW_S, answer, asking, queue

PAGE = Path(__file__).resolve().parents[3] / "docs" / "queue-policies.md"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose files are policies."""
    monkeypatch.setattr(ordering, "__path__", [*ordering.__path__, str(tmp_path)])
    return tmp_path


def test_the_pages_example_serves(folder: Path) -> None:
    block = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert block is not None
    (folder / "shortest_first.py").write_text(block[1])
    assert "shortest_first" in ordering.names()
    config = sim_config(SimOptions(ordering="shortest_first")).queue
    assert config.ordering == "shortest_first"
    scheduler = queue(QueueConfig(ordering=config.ordering, pause_for_light_tenants=False))
    held = answer(scheduler, asking(99))
    lengths = [400, 30, 200, 10]
    for ticket, length in enumerate(lengths, 1):
        answer(scheduler, asking(ticket, max_tokens=length))
    paused = len(lengths) + 1  # 5 tokens of 400 are left
    answer(scheduler, asking(paused, max_tokens=400, emitted_tokens=395, registered=True))
    lengths.append(5)
    served: list[int] = []
    while isinstance(held, Grant) and len(served) < len(lengths):
        effects = scheduler.decide(
            FromGateway("g", Release(held.ticket, held.lease_id, 10, 10, "completed")), NOW_S
        )
        held = next(e.message for e in effects if isinstance(e, ToGateway))
        served.append(held.ticket)
    assert [lengths[ticket - 1] for ticket in served] == sorted(lengths)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("class Policy:\n    def add(self): ...\n", "lacks peek, discard"),
        ("class Police: ...\n", "there is no policy named 'mine', only .*fifo"),
    ],
)
def test_what_is_no_policy_is_a_clear_error(folder: Path, text: str, error: str) -> None:
    (folder / "mine.py").write_text(text)
    with pytest.raises(ConfigError, match=error):
        fresh("mine")


def test_an_error_in_its_file_is_shown_as_it_is(folder: Path) -> None:
    (folder / "needs_more.py").write_text("import a_module_that_is_not_there\n")
    with pytest.raises(ModuleNotFoundError, match="a_module_that_is_not_there"):
        fresh("needs_more")


def fresh(name: str) -> None:
    """Make it without what an earlier test imported under this name."""
    sys.modules.pop(f"{ordering.__name__}.{name}", None)
    ordering.make_ordering(name, None)
