"""What an owner that was away brings back after a purge is not taken; what the book knows, and others' answers, are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.cache.key import CacheKey
from services.config import JournalConfig
from services.journal.authority import JournalAuthority
from services.journal.forgotten import Forgotten
from services.link.journal_messages import JournalOpen, JournalState

SCOPES = st.binary(min_size=1, max_size=2)


@given(purged=st.lists(SCOPES, max_size=12), asked=st.lists(SCOPES, max_size=3))
def test_the_last_purges_are_known(purged: list[bytes], asked: list[bytes]) -> None:
    forgotten = Forgotten(max_known=4)
    for scope in purged:
        forgotten.add(scope)
    last = list(dict.fromkeys(reversed(purged)))[:4]
    assert forgotten.covers(asked) == any(scope in last for scope in asked)


class Line:
    """A gateway's link, as far as the journal uses it."""

    name = "gateway"

    def __init__(self) -> None:
        self.sent: list[object] = []

    def send(self, message: object) -> None:
        self.sent.append(message)

    def close(self, why: str) -> None:
        raise AssertionError(why)


def key_of(person: bytes) -> CacheKey:
    return CacheKey(b"tenant-1" + bytes(8) + b"digest" * 5 + b"xx", person)


def told(
    journal: JournalAuthority, line: Line, call_id: int, key: CacheKey, epoch: int
) -> JournalState | None:
    """What becomes of an owner that says what it holds."""
    opened = JournalOpen(call_id, key.wire, b"print", b"head", epoch=epoch, person=key.person)
    journal._opened(line, opened, key)  # type: ignore[arg-type]
    states = [each for each in line.sent if isinstance(each, JournalState) and each.call_id == call_id]
    return states[-1] if states else None


def test_an_owner_that_was_away_during_a_purge_is_told_that_it_is_gone() -> None:
    journal, line = JournalAuthority(JournalConfig()), Line()
    journal.link_up(line)  # type: ignore[arg-type]
    ann, bob = key_of(b"ann-----"), CacheKey(key_of(b"").wire[:-1] + b"y", b"bob-----")
    for number, key in enumerate((ann, bob)):
        journal._desk.open((line, number), key)  # type: ignore[arg-type]
    journal.purge(b"p" + ann.person)
    state = told(journal, line, 0, ann, epoch=1)
    assert state is not None and state.state == "gone"
    assert journal.book.held(b"p" + ann.person) == 0
    assert told(journal, line, 1, bob, epoch=1) is None, "his goes on"
    assert journal.book.held(b"p" + bob.person) == 1


def test_an_answer_that_began_after_the_purge_is_taken() -> None:
    journal, line = JournalAuthority(JournalConfig()), Line()
    journal.link_up(line)  # type: ignore[arg-type]
    ann = key_of(b"ann-----")
    journal.purge(b"p" + ann.person)
    journal._desk.open((line, 0), ann)  # type: ignore[arg-type]
    state = told(journal, line, 0, ann, epoch=0)
    assert state is not None and state.state == "own"
    assert journal.book.held(b"p" + ann.person) == 1
