"""One contract for every ordering policy (services/queue/ordering); a new policy's file is found by itself."""

from __future__ import annotations

import pytest

from services.errors import ConfigError
from services.queue.entry import GONE, LEASED, WAITING, Entry
from services.queue.ordering import Ordering, make_ordering, names

POLICIES = names()


def entry(
    seq: int,
    tenant: str = "t",
    arrived_s: float = 0.0,
    deadline_s: float = 100.0,
    level: int = 1,
    weight: float = 1.0,
) -> Entry:
    return Entry(
        "g",
        seq,
        f"r{seq}",
        tenant,
        1,
        level,
        weight,
        10,
        10,
        0,
        arrived_s,
        deadline_s,
        seq,
        30.0,
        20,
        True,
        False,
    )


@pytest.fixture(params=POLICIES)
def lane(request: pytest.FixtureRequest) -> Ordering:
    return make_ordering(request.param, None)


def drain(lane: Ordering) -> list[Entry]:
    out = []
    while (head := lane.peek()) is not None:
        assert lane.peek() is head, "peek changes nothing"
        head.state = LEASED
        lane.discard(head)
        lane.check_integrity()
        out.append(head)
    return out


def test_an_empty_lane_has_nobody(lane: Ordering) -> None:
    assert lane.peek() is None
    assert lane.shed() is None
    assert len(lane) == 0


def test_everybody_comes_out_once(lane: Ordering) -> None:
    entries = [entry(i, f"t{i % 3}", arrived_s=float(i % 7), deadline_s=50.0 + i % 5) for i in range(100)]
    for one in entries:
        lane.add(one)
    assert len(lane) == 100
    assert sorted(e.seq for e in drain(lane)) == list(range(100))


def test_requests_alike_are_served_by_arrival(lane: Ordering) -> None:
    for i in range(20):
        lane.add(entry(i, arrived_s=float(i), deadline_s=100.0 + i))
    assert [e.seq for e in drain(lane)] == list(range(20))


def test_who_left_is_skipped_and_forgotten(lane: Ordering) -> None:
    entries = [entry(i, f"t{i % 4}") for i in range(500)]
    for one in entries:
        lane.add(one)
    for one in entries[:-1]:
        one.state = GONE
        lane.discard(one)
    lane.check_integrity()
    assert len(lane) == 1
    assert lane.peek() is entries[-1]


def test_who_was_put_back_is_still_served_once(lane: Ordering) -> None:
    one, two = entry(1), entry(2)
    lane.add(one)
    lane.add(two)
    for _ in range(100):
        one.state = GONE
        lane.discard(one)
        one.state = WAITING
        lane.add(one, returning=True)
        lane.check_integrity()
    assert [e.seq for e in drain(lane)] == [1, 2]


def test_shedding_spares_the_protected(lane: Ordering) -> None:
    safe = entry(1)
    safe.protected = True
    lane.add(safe)
    assert lane.shed() is None
    lane.add(entry(2))
    victim = lane.shed()
    assert victim is not None
    assert victim.seq == 2


@pytest.mark.parametrize("policy", POLICIES)
def test_a_lane_of_aged_entries_holds_only_its_level(policy: str) -> None:
    lane = make_ordering(policy, 0)
    one, two = entry(1, level=0), entry(2, level=0)
    lane.add(one)
    lane.add(two)
    one.level = -1
    lane.discard(one)
    assert lane.peek() is two


def test_token_fairness_serves_the_least_served_and_by_weight() -> None:
    lane = make_ordering("token_fairness", None)
    for i in range(60):
        lane.add(entry(2 * i, "light", weight=1.0))
        lane.add(entry(2 * i + 1, "heavy", weight=2.0))
    served = {"light": 0, "heavy": 0}
    for _ in range(30):
        head = lane.peek()
        assert head is not None
        head.state = LEASED
        lane.discard(head)
        lane.charge(head.tenant, 30.0)
        served[head.tenant] += 1
    assert served == {"light": 10, "heavy": 20}


def test_idleness_earns_no_credit() -> None:
    lane = make_ordering("token_fairness", None)
    for i in range(20):
        lane.add(entry(i, "busy"))
    lane.charge("busy", 1000.0)
    lane.peek()
    lane.add(entry(100, "late"))
    assert lane.counter_of("late") == lane.counter_of("busy")


@pytest.mark.parametrize("name", ["nope", "../fairness", "__init__", "", "heap"])
def test_an_unknown_policy_is_a_clear_error(name: str) -> None:
    with pytest.raises(ConfigError, match="ordering"):
        make_ordering(name, None)
