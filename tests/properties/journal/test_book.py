"""Invariants 1 to 6 of services/journal/book.py, for any order of calls, as one state machine with a model beside it.

Gateways are members; what each was told is kept and compared: a follower's tokens must be, at every moment, a prefix
of the right ones, and an owner that took over must have been told all that is kept.
"""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from services.config import JournalConfig
from services.journal.book import Book
from services.journal.effects import Deliver, Done, Follow, Have, Keep, Own, Tell, Watch
from services.journal.lane import Lane
from services.journal.records import encode, rebuild
from services.link.journal_messages import LanePart
from services.request import pack_ids

KEYS = (b"a", b"b")
RIGHT = {
    key: [tuple(range(k * 100 + c * 50, k * 100 + c * 50 + 12)) for c in range(2)]
    for k, key in enumerate(KEYS)
}
CONFIG = JournalConfig(owner_grace_s=1.0, keep_s=20.0, max_bytes=4096)


class Member:
    """One call of one gateway, and what it was told."""

    def __init__(self, number: int, key: bytes) -> None:
        self.number, self.key = number, key
        self.lanes: dict[int, Lane] = {}
        self.state = "asking"
        self.epoch = 0
        self.linked = True

    def take(self, parts: tuple[LanePart, ...]) -> None:
        for part in parts:
            lane = self.lanes.setdefault(part.choice, Lane())
            assert part.start == len(lane.ids), "a token twice or a hole"
            lane.accept(part)

    def made(self, choice: int) -> int:
        return len(self.lanes[choice].ids) if choice in self.lanes else 0


class BookMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.book: Book[int] = Book(CONFIG)
        self.now_s = 0.0
        self.members: dict[int, Member] = {}
        self.ends: dict[bytes, int] = {}
        self.epochs: dict[bytes, int] = {}
        self.store: dict[bytes, list[bytes]] = {}

    def run_effects(self, effects: list[Any]) -> None:
        for effect in effects:
            if isinstance(effect, Keep):
                if effect.what == "drop":
                    self.store.pop(effect.key, None)
                    self.ends.pop(effect.key, None)
                    self.epochs.pop(effect.key, None)
                else:
                    self.store.setdefault(effect.key, []).append(encode(effect, b"print", b"head"))
                if effect.what == "own":
                    assert effect.epoch > self.epochs.get(effect.key, 0), "an epoch that was there"
                    self.epochs[effect.key] = effect.epoch
                if effect.what == "end":
                    self.ends[effect.key] = self.ends.get(effect.key, 0) + 1
                    assert self.ends[effect.key] == 1, "it ends twice"
                continue
            member = self.members[effect.member]
            match effect:
                case Follow(parts=parts):
                    member.state = "follow"
                    member.take(parts)
                case Deliver(parts=parts):
                    assert member.state == "follow"
                    member.take(parts)
                case Own(epoch=epoch):
                    entry = self.book.get(member.key)
                    assert entry is not None
                    for choice, lane in entry.lanes.items():
                        assert member.made(choice) == len(lane.ids), "an heir that lacks tokens"
                    member.state, member.epoch = "own", epoch
                case Done():
                    for choice in range(2):
                        assert tuple(member.lanes[choice].ids) == RIGHT[member.key][choice]
                    member.state = "done"
                case Tell(state=state):
                    member.state = state
                case Have(counts=counts):
                    member.state = "own"
                    for choice in range(2):
                        kept = counts[choice] if choice < len(counts) else 0
                        assert kept <= len(RIGHT[member.key][choice])
                case Watch():
                    assert member.state in ("own", "asking")

    def pick(self, data: Any, *states: str) -> Member | None:
        found = [m for m in self.members.values() if m.state in states and m.linked]
        return data.draw(st.sampled_from(found)) if found else None

    @rule(key=st.sampled_from(KEYS), resume=st.booleans())
    def open(self, key: bytes, resume: bool) -> None:
        member = Member(len(self.members), key)
        self.members[member.number] = member
        known = self.book.get(key) is not None
        effects = self.book.open(key, member.number, b"print", b"head", (b"t",), self.now_s, resume=resume)
        self.run_effects(effects)
        assert (member.state == "gone") == (resume and not known)

    @rule(key=st.sampled_from(KEYS))
    def another_request(self, key: bytes) -> None:
        if (entry := self.book.get(key)) is not None:
            before = (entry.parts(), entry.owner, entry.epoch, dict(entry.followers))
            self.members[-1] = Member(-1, key)
            assert self.book.open(key, -1, b"other", b"head", (), self.now_s) == [Tell(-1, "conflict")]
            assert before == (entry.parts(), entry.owner, entry.epoch, dict(entry.followers))

    @rule(data=st.data(), choice=st.integers(0, 1), num=st.integers(1, 5), again=st.integers(0, 3))
    def make(self, data: Any, choice: int, num: int, again: int) -> None:
        """An owner makes tokens, and sends some that it sent before."""
        if (member := self.pick(data, "own")) is None:
            return
        right, have = RIGHT[member.key][choice], member.made(choice)
        start, stop = max(0, have - again), min(have + num, len(right))
        finish = "length" if stop == len(right) else None
        if stop == have and choice in member.lanes and member.lanes[choice].finish:
            return
        lane = member.lanes.setdefault(choice, Lane())
        lane.accept(LanePart(choice, have, pack_ids(right[have:stop]), finish))
        part = LanePart(choice, start, pack_ids(right[start:stop]), finish)
        self.run_effects(self.book.append(member.key, member.number, [part], self.now_s))

    @rule(data=st.data())
    def end(self, data: Any) -> None:
        if (member := self.pick(data, "own")) is None:
            return
        if all(choice in member.lanes and member.lanes[choice].finish for choice in range(2)):
            effects = self.book.end(member.key, member.number, b"tail", self.now_s)
            if not any(isinstance(effect, Tell) for effect in effects):
                member.state = "done"
            self.run_effects(effects)

    @rule(data=st.data())
    def leave(self, data: Any) -> None:
        if (member := self.pick(data, "own", "follow")) is not None:
            member.state = "left"
            self.run_effects(self.book.leave(member.key, member.number, self.now_s))

    @rule(data=st.data())
    def lose_link(self, data: Any) -> None:
        if (member := self.pick(data, "own", "follow")) is not None:
            member.linked = False
            if member.state == "follow":
                member.state = "left"
            self.run_effects(self.book.unlinked(member.key, member.number, self.now_s))

    @precondition(lambda self: any(not m.linked and m.state == "own" for m in self.members.values()))
    @rule(data=st.data())
    def come_back(self, data: Any) -> None:
        """An owner's link is up again: a new call, with the same tokens and its epoch."""
        old = data.draw(
            st.sampled_from([m for m in self.members.values() if not m.linked and m.state == "own"])
        )
        old.state = "left"
        member = Member(len(self.members), old.key)
        member.lanes, member.epoch = old.lanes, old.epoch
        self.members[member.number] = member
        entry = self.book.get(old.key)
        newer = entry is not None and entry.epoch > old.epoch
        effects = self.book.hold(old.key, member.number, b"print", b"head", (b"t",), old.epoch, self.now_s)
        self.run_effects(effects)
        assert not newer or member.state == "fenced"
        if member.state == "own":
            parts = [part for choice, lane in member.lanes.items() if (part := lane.part(choice)) is not None]
            self.run_effects(self.book.append(member.key, member.number, parts, self.now_s))

    @rule(seconds=st.sampled_from([0.3, 1.0, 25.0]))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds
        self.run_effects(self.book.tick(self.now_s))

    @rule()
    def purge(self) -> None:
        self.run_effects(self.book.purge(b"t"))
        assert not len(self.book)

    @rule()
    def restart(self) -> None:
        """The authority dies: what its store has is all that is left, and every link is down."""
        self.book = Book(CONFIG)
        for member in self.members.values():
            if member.state in ("own", "follow"):
                member.linked = False
                member.state = "own" if member.state == "own" else "left"
        for key, records in self.store.items():
            entry = rebuild(key, records, (b"t",), self.now_s)
            assert entry is not None
            self.book.restore(entry, self.now_s)  # type: ignore[arg-type]

    @invariant()
    def books_balance(self) -> None:
        self.book.check_integrity()
        for key in KEYS:
            owners = [m for m in self.members.values() if m.key == key and m.state == "own" and m.linked]
            assert len(owners) <= 1, "two owners that both are heard"
            if (entry := self.book.get(key)) is not None:
                for choice, lane in entry.lanes.items():
                    assert tuple(lane.ids) == RIGHT[key][choice][: len(lane.ids)]


BookMachine.TestCase.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)
TestBook = BookMachine.TestCase


def test_what_is_being_made_is_never_dropped_for_room() -> None:
    book: Book[int] = Book(CONFIG)
    for number in range(4):
        book.open(b"%d" % number, number, b"", b"h" * 400, (), 0.0)
    assert [type(e) for e in book.open(b"5", 5, b"", b"h" * 400, (), 0.0)] == [Tell]
    book.end(b"2", 2, b"", 1.0)
    dropped = book.open(b"6", 6, b"", b"h" * 400, (), 2.0)
    assert Keep(b"2", 1, "drop") in dropped
    assert isinstance(dropped[-2], Own)
    assert len(book) == 4
