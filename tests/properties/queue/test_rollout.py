"""Releases, under any sequence of events.

1. Shares add up to 1, each within [0, 1]; choosing by them meets them.
2. Serving floor: no share for a revision without an engine while the other has one, and no step up without room.
3. One step at a time, each after `hold_s` and a good verdict, but for an operator's promotion.
4. After an abort, or a bad verdict, the old revision has everything while it has an engine, for ever.
5. DONE means that the old one has no streams, BACK that the new one has none; both are final.
6. A session changes at most once while shares rise, and only to the newer revision; when they fall it returns.
7. A revision as good as the old one is hardly ever called bad, one that is much worse hardly ever good.
8. A queue that takes a release over from its gateways goes on with the same shares.
9. Workers are renewed one at a time, never the last of its model's revision, none younger than the age set.
"""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from services.config import RolloutConfig
from services.errors import ConfigError
from services.queue.rollout import plan
from services.queue.rollout.desk import Desk
from services.queue.rollout.plan import FINAL, Abort, Look, Pause, Phase, Plan, Promote, Release, Seen
from services.queue.rollout.recycle import Recycling, Unit, next_unit
from services.queue.rollout.verdict import NUM_BOUNDS, Counts, Kind, Limits, bucket, judge
from services.queue.rollout.weights import Table, choose, normal

ORDER = [Phase.AWAITING, Phase.STEPPING, Phase.BAKING, Phase.LEAVING, Phase.DONE]

counts = st.builds(
    lambda ended, bad, slow: made(ended, min(bad, ended), slow),
    st.integers(0, 400), st.sampled_from((0, 0, 0, 1, 5, 100)), st.sampled_from((0.0, 0.0, 0.05, 0.9)),
)  # fmt: skip
seens = st.builds(
    lambda engines, streams, counted: Seen(engines, 8 * engines, streams, counted),
    st.integers(0, 4), st.integers(0, 3), counts,
)  # fmt: skip
looks = st.builds(Look, seens, seens)
events = st.one_of(
    looks,
    looks,
    looks,
    looks,
    st.builds(Promote, seens, seens),
    st.just(Abort()),
    st.builds(Pause, st.booleans()),
)
plans = st.builds(
    Plan, st.just("new"), st.just("old"), st.sampled_from(("canary", "blue_green", "rolling")),
    st.sampled_from(((0.05, 0.25, 1.0), (0.5, 1.0), (1.0,))), st.sampled_from((0.0, 30.0)),
    st.sampled_from((0.0, 60.0)), st.just(300.0), st.sampled_from((0.5, 1.0)), st.just(Limits(20)),
)  # fmt: skip


def made(ended: int, bad: int = 0, slow_share: float = 0.0) -> Counts:
    first = [0] * (NUM_BOUNDS + 1)
    slow = round(slow_share * ended)
    first[bucket(0.1)], first[bucket(5.0)] = ended - slow, slow
    return Counts(ended, bad, tuple(first))


@settings(max_examples=70, deadline=None)
@given(plans, st.lists(st.tuples(events, st.sampled_from((0.1, 20.0, 40.0, 400.0))), max_size=25))
def test_any_release(wish: Plan, script: list[tuple[plan.Event, float]]) -> None:
    now_s, release = 0.0, plan.begin(wish, 0.0)
    total = {"new": Counts(), "old": Counts()}  # counters only grow
    for event, wait_s in script:
        now_s += wait_s
        if isinstance(event, Look | Promote):
            new = grown(event.new, total, "new")
            old = grown(event.old, total, "old")
            event = type(event)(new, old)
        before, release = release, plan.decide(release, event, now_s)
        check_move(before, release, event, now_s)
        if isinstance(event, Look | Promote):
            check_share(release, event.new, event.old)


def grown(seen: Seen, total: dict[str, Counts], name: str) -> Seen:
    was, more = total[name], seen.counts
    total[name] = Counts(
        was.ended + more.ended,
        was.bad + more.bad,
        tuple(a + b for a, b in zip(was.first, more.first, strict=True)),
    )
    return Seen(seen.engines, seen.slots, seen.streams, total[name])


def check_share(release: Release, new: Seen, old: Seen) -> None:
    share = plan.share(release, new, old)
    assert 0.0 <= share <= 1.0
    if old.engines and not new.engines:
        assert share == 0.0
    if new.engines and not old.engines:
        assert share == 1.0
    if release.phase in (Phase.RETURNING, Phase.BACK) and old.engines:
        assert share == 0.0
    if release.phase is Phase.DONE and new.engines:
        assert share == 1.0


def check_move(before: Release, after: Release, event: plan.Event, now_s: float) -> None:
    if before.phase in FINAL:
        assert after is before
        return
    if before.phase is Phase.RETURNING:
        assert after.phase in (Phase.RETURNING, Phase.BACK)
    if after.phase is Phase.DONE:
        assert isinstance(event, Look) and not event.old.streams
    if after.phase is Phase.BACK:
        assert isinstance(event, Look) and not event.new.streams
    rose = after.phase in ORDER and (ORDER.index(after.phase), after.step) > (
        ORDER.index(before.phase),
        before.step,
    )
    if not rose or isinstance(event, Promote):
        return
    assert isinstance(event, Look)
    assert after.step - before.step <= 1
    if before.phase in (Phase.STEPPING, Phase.BAKING) and before.plan.shares:
        assert not before.paused
        held_s = before.plan.hold_s if before.phase is Phase.STEPPING else before.plan.bake_s
        assert now_s - before.since_s >= held_s
    if after.phase in (Phase.STEPPING, Phase.BAKING) and after.plan.shares:
        wanted = after.plan.floor_share * after.plan.shares[after.step] * event.old.slots
        assert event.new.slots >= wanted and event.new.engines
    if before.phase is Phase.STEPPING and before.plan.shares:
        beside = event.old.counts.since(before.old_before)
        old = beside if beside.ended >= 20 else event.old.counts
        assert (
            judge(event.new.counts.since(before.new_before), beside, old, before.plan.limits).kind
            is Kind.GOOD
        )


sessions = st.lists(st.text(max_size=8), min_size=1, max_size=30, unique=True)


@given(sessions, st.lists(st.floats(0.0, 1.0), min_size=1, max_size=8))
def test_sessions_stick(names: list[str], parts: list[float]) -> None:
    for rising in (sorted(parts), sorted(parts, reverse=True)):
        met = {name: [] for name in names}
        for part in rising:
            table = normal([("new", part), ("old", 1.0 - part)], salt="new")
            assert abs(sum(share for _, share in table.shares) - 1.0) < 1e-9
            for name in names:
                revision = choose(table, name)
                assert table.share(revision) > 0.0
                if met[name][-1:] != [revision]:
                    met[name].append(revision)
        order = ["old", "new"] if rising == sorted(parts) else ["new", "old"]
        for seen in met.values():
            assert seen in (order, order[:1], order[1:])


def test_shares_are_met() -> None:
    table = Table((("c", 0.1), ("b", 0.3), ("a", 0.6)), "salt")
    got = [choose(table, f"session {i}") for i in range(20_000)]
    for name, share in table.shares:
        assert abs(got.count(name) / len(got) - share) < 0.01


@pytest.mark.parametrize(
    ("error_rate", "slow_share", "never"),
    [(0.0, 0.05, Kind.BAD), (0.01, 0.05, Kind.BAD), (0.2, 0.05, Kind.GOOD), (0.0, 0.6, Kind.GOOD)],
)
def test_verdicts_are_rarely_wrong(error_rate: float, slow_share: float, never: Kind) -> None:
    rng, wrong = Random(7), 0
    for _ in range(400):
        old = made(300, sum(rng.random() < 0.01 for _ in range(300)), 0.05)
        ended = rng.randint(50, 300)
        bad = sum(rng.random() < error_rate for _ in range(ended))
        slow = sum(rng.random() < slow_share for _ in range(ended)) / ended
        wrong += judge(made(ended, bad, slow), old, old, Limits()).kind is never
    assert wrong <= 8, f"{wrong} of 400"


def test_what_never_answers_is_slow() -> None:
    silent = Counts(silent_s=(9.0,) * 60)
    assert judge(silent, made(300), made(300), Limits()).kind is Kind.BAD


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=10), st.booleans())
def test_a_desk_hands_its_release_on(worlds: list[tuple[int, int]], serve_new: bool) -> None:
    config = RolloutConfig(on_new_revision="serve" if serve_new else "hold")
    desk = Desk("m", config, 0)
    desk.look({"old": Seen(2, 16)}, 0.0)
    desk.start(Plan("new", "old", steps=(0.25, 1.0), floor_share=0.0), {"old": Seen(2, 16)}, 0.0)
    for i, (new, old) in enumerate(worlds):
        seen = {"new": Seen(new, 8 * new), "old": Seen(old, 8 * old)}
        desk.look(seen, float(i))
        heir = Desk("m", config, 0)
        heir.adopt(desk.told(), 100.0)
        assert heir.table == desk.table and heir.version >= desk.version
        for session in "abcdefgh":
            assert heir.route("", False, session) == desk.route("", False, session)
        assert desk.route("old", True, "x") == "old", "an answer goes on where it began"
        heir.look(seen, 101.0)
        assert heir.table == desk.table
    with pytest.raises(ConfigError):
        desk.start(Plan("newer"), {}, 0.0)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(("a m", "b m", "a n")), st.floats(0.0, 20.0)), max_size=6),
    st.lists(st.tuples(st.sampled_from((1.0, 5.0, 30.0)), st.booleans()), max_size=30),
)
def test_workers_are_renewed_one_at_a_time(
    young: list[tuple[str, float]], script: list[tuple[float, bool]]
) -> None:
    units = {f"u{i}": Unit(f"u{i}", rev[0], age, True, False, rev[2]) for i, (rev, age) in enumerate(young)}
    away: dict[str, Unit] = {}
    memory, now_s, number = Recycling(), 0.0, len(units)
    for wait_s, returns in script:
        now_s += wait_s
        units = {n: structs.replace(u, age_s=u.age_s + wait_s) for n, u in units.items()}
        memory, chosen = next_unit(list(units.values()), memory, now_s, after_s=10.0, back_within_s=1e9)
        if chosen:
            unit = units[chosen]
            assert not away and unit.age_s >= 10.0
            assert sum(u.serves and u.lane == unit.lane for u in units.values()) > 1
            assert unit.age_s == max(
                u.age_s for u in units.values()
                if sum(o.serves and o.lane == u.lane for o in units.values()) > 1
            )  # fmt: skip
            away[chosen] = units[chosen] = structs.replace(unit, serves=False, leaving=True)
        elif away and returns:
            gone, unit = away.popitem()
            del units[gone]
            number += 1
            units[f"u{number}"] = Unit(f"u{number}", unit.revision, 0.0, True, False, unit.model)
