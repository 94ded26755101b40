"""Single flight, against a model, over any sequence of events (numbered in services/cache/flight.py)."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from services.cache.flight import Alone, Deliver, Effect, Flights, Follow, Lead, Want
from services.link.messages import FeedPart

KEY = b"k"


class Machine(RuleBasedStateMachine):
    """Members are numbers. Each keeps what it was told and delivered, as a gateway would."""

    def __init__(self) -> None:
        super().__init__()
        self.flights: Flights[int] = Flights(silent_s=100.0)
        self.now_s = 0.0
        self.produced: list[FeedPart] = []
        self.has: dict[int, list[FeedPart]] = {}
        self.role: dict[int, str] = {}
        self.ranks: dict[int, int] = {}
        self.wanted = False
        self.next = 0
        self.tainted = False

    def leaders(self) -> list[int]:
        return [member for member, role in self.role.items() if role == "lead"]

    def apply(self, effects: list[Effect[int]]) -> None:
        for effect in effects:
            match effect:
                case Lead(member, promoted):
                    assert promoted == (self.role.get(member) == "follow")
                    self.role[member] = "lead"
                    if promoted:  # it continues after exactly what was produced (rule 3)
                        assert self.has[member] == self.produced
                    else:
                        assert not self.produced
                case Follow(member):
                    self.role[member] = "follow"
                case Alone(member):
                    self.role[member] = "alone"
                case Deliver(member, parts):
                    assert self.role[member] == "follow"
                    self.has[member].extend(parts)
                case Want(member, have):
                    assert self.role[member] == "lead"
                    assert have == len(self.produced)

    def ended(self) -> None:
        self.produced.clear()
        self.tainted = False
        for member, role in list(self.role.items()):
            if role in ("lead", "follow"):
                del self.role[member]

    @rule(rank=st.integers(0, 2), scope=st.sampled_from([b"a", b"b"]))
    def join(self, rank: int, scope: bytes) -> None:
        member, self.next = self.next, self.next + 1
        self.has[member], self.ranks[member] = [], rank
        before = self.leaders()
        effects = self.flights.join(KEY, member, self.now_s, rank=rank, scopes=(scope,))
        assert effects[0].member == member
        self.apply(effects)
        if isinstance(effects[0], Lead) and before:  # rule 4
            assert rank < self.ranks[before[0]]
            assert self.role[before[0]] == "alone"

    @precondition(lambda self: self.role)
    @rule(data=st.data(), num=st.integers(1, 3))
    def feed(self, data: st.DataObject, num: int) -> None:
        member = data.draw(st.sampled_from(sorted(self.role)))
        start = len(self.produced)
        parts = tuple(FeedPart(0, (start + offset,)) for offset in range(num))
        leads = self.role[member] == "lead"
        if leads:
            self.produced.extend(parts)
        effects = self.flights.feed(KEY, member, parts, self.now_s)
        assert leads or not effects  # rule 1
        self.apply(effects)

    @precondition(lambda self: self.role)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        member = data.draw(st.sampled_from(sorted(self.role)))
        role = self.role.pop(member)
        followers = [each for each, kind in self.role.items() if kind == "follow"]
        effects = self.flights.leave(KEY, member, self.now_s)
        self.apply(effects)
        if role == "lead":
            assert bool(self.leaders()) == bool(followers)  # rule 3
            if not followers:
                assert self.flights.get(KEY) is None
                self.ended()

    @precondition(lambda self: self.role)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        member = data.draw(st.sampled_from(sorted(self.role)))
        flight = self.flights.finish(KEY, member)
        assert (flight is not None) == (self.role[member] == "lead")  # rule 1
        if flight is not None:
            assert flight.tainted == self.tainted
            assert set(flight.followers) == {each for each, role in self.role.items() if role == "follow"}
            for follower in flight.followers:
                assert self.has[follower] == self.produced  # rule 2
            self.ended()

    @rule(scope=st.sampled_from([b"a", b"b"]))
    def purge(self, scope: bytes) -> None:
        flight = self.flights.get(KEY)
        concerned = flight is not None and scope in flight.scopes
        assert self.flights.purge(scope) == concerned
        self.tainted = self.tainted or concerned

    @rule(by_s=st.sampled_from([1.0, 60.0, 100.0]))
    def time_passes(self, by_s: float) -> None:
        self.now_s += by_s
        leaders = self.leaders()
        for _, effects in self.flights.expire(self.now_s):
            self.role[leaders[0]] = "alone"
            self.apply(effects)
            if not effects:
                self.ended()

    @invariant()
    def sound(self) -> None:
        self.flights.check_integrity()
        assert len(self.leaders()) <= 1
        flight = self.flights.get(KEY)
        assert (flight is not None) == bool(self.leaders())
        for member, role in self.role.items():
            if role == "follow":
                assert self.has[member] == self.produced  # rule 2


TestFlights = Machine.TestCase
TestFlights.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)


def test_a_backlog_that_outgrew_its_bound_leaves_late_comers_alone() -> None:
    flights: Flights[int] = Flights(max_backlog_parts=2)
    flights.join(KEY, 1, 0.0)
    assert flights.join(KEY, 2, 0.0) == [Follow(2), Want(1, 0)]
    parts = tuple(FeedPart(0, (number,)) for number in range(3))
    assert flights.feed(KEY, 1, parts, 0.0) == [Deliver(2, parts)]
    assert flights.join(KEY, 3, 0.0) == [Alone(3)]
    assert flights.leave(KEY, 1, 0.0) == [Lead(2, promoted=True)]


def test_who_learns_that_another_process_leads_follows_first() -> None:
    flights: Flights[int] = Flights()
    flights.join(KEY, 1, 0.0)
    flights.join(KEY, 2, 0.0)
    assert flights.delegate(KEY, 1, 99) == [Follow(1)]
    part = (FeedPart(0, (5,)),)
    assert flights.feed(KEY, 99, part, 0.0) == [Deliver(1, part), Deliver(2, part)]
    assert flights.leave(KEY, 99, 0.0) == [Lead(1, promoted=True), Want(1, 1)]
    assert flights.delegate(KEY, 1, 98) == []
