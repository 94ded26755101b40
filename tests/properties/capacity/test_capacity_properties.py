"""Invariants of `drain` and `pool_plan` (the numbers are those of the files' rules).

drain 1  An interruption of a serving node acts in the same step: cordon, migrate, drain, in this order.
drain 3  A node that is given up has a deadline, and no drain lasts for ever.
drain 4  Repeating any event at once adds nothing.
drain 5  The deadlines given to Ray for a node never move later.
drain 6  Each hook is answered at most once, and by its deadline exactly once.
drain 7  After a node has drained, no message but its hook's and Gone has an effect.
plan 1   Sizes are whole groups between floor and ceiling.
plan 3   A size is only ever raised; shrinking names serving nodes, each at most once a step.
plan 5   Looking again at once, after the cloud did what was asked, asks for nothing more.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from services.capacity import drain as d
from services.capacity.nodes import PoolView
from services.capacity.notices import Hook, Notice, Signal
from services.capacity.pool_plan import GiveUp, Memory, SetDesired, plan
from services.config_capacity import DrainConfig, PoolConfig, ScaleConfig, Tier

IDS = [f"i-{n:017x}" for n in range(3)]
POLICY = DrainConfig()

ids = st.sampled_from(IDS)
remaining = st.floats(0, 300, allow_nan=False)
events = st.one_of(
    st.builds(lambda i, r: d.Noticed(Notice(Signal.INTERRUPTION, i, 1.0), r), ids, remaining),
    st.builds(lambda i: d.Noticed(Notice(Signal.REBALANCE, i), None), ids),
    st.builds(
        lambda i, t: d.Noticed(Notice(Signal.TERMINATING, i, None, Hook("g", "drain", t)), None),
        ids,
        st.sampled_from("ab"),
    ),
    st.builds(d.ScaleIn, ids),
    st.builds(d.ReplacementReady, ids),
    st.builds(d.Drained, ids),
    st.just(d.Tick()),
)
histories = st.lists(st.tuples(st.floats(0, 60, allow_nan=False), events), max_size=15)


@settings(max_examples=60)
@given(histories)
def test_drain_rules(history: list[tuple[float, d.Event]]) -> None:
    state, now_s = d.State(), 0.0
    deadlines: dict[str, float] = {}
    answered: list[tuple[str, Hook]] = []
    asked: dict[tuple[str, Hook], None] = {}
    for gap_s, event in history:
        now_s += gap_s
        before = state
        state, effects = d.decide(state, event, now_s, POLICY)
        for effect in effects:
            if isinstance(effect, d.DrainNode) and effect.within_s is not None:
                ends_s = now_s + effect.within_s
                assert ends_s <= deadlines.get(effect.instance_id, float("inf")) + 1e-6  # 5
                assert 0 <= effect.within_s <= POLICY.drain_seconds
                deadlines[effect.instance_id] = ends_s
            if isinstance(effect, d.AnswerHook):
                answered.append((effect.instance_id, effect.hook))
        if isinstance(event, d.Noticed) and event.notice.signal is Signal.INTERRUPTION:
            phase = before.nodes.get(event.notice.instance_id, d.NodeState()).phase
            if phase < d.Phase.DRAINING:
                assert [type(e) for e in effects] == [d.Cordon, d.MigrateStreams, d.DrainNode]  # 1
            if phase is d.Phase.DRAINED:
                assert effects == ()  # 7
        if isinstance(event, d.Noticed) and event.notice.hook is not None:
            asked[(event.notice.instance_id, event.notice.hook)] = None
        again, more = d.decide(state, event, now_s, POLICY)
        assert more == () and again == state  # 4
    for gap_s in (POLICY.replacement_patience_s, POLICY.drain_seconds, POLICY.drain_seconds):
        now_s += gap_s  # long after, everything that was waited for has been answered
        state, effects = d.decide(state, d.Tick(), now_s, POLICY)
        answered += [(e.instance_id, e.hook) for e in effects if isinstance(e, d.AnswerHook)]
    assert not [n for n in state.nodes.values() if n.phase is d.Phase.DRAINING]  # 3
    current = {(i, n.hook) for i, n in state.nodes.items() if n.hook is not None and n.deadline_s is not None}
    assert current <= set(answered)  # 6


@settings(max_examples=60)
@given(
    group=st.integers(1, 4),
    low=st.integers(0, 6),
    high=st.integers(0, 12),
    demand=st.integers(-3, 40),
    desired=st.integers(0, 12),
    serving=st.integers(0, 12),
    gap_s=st.floats(0, 2000, allow_nan=False),
)
def test_plan_rules(
    group: int, low: int, high: int, demand: int, desired: int, serving: int, gap_s: float
) -> None:
    ceiling = (low + high + group) // group * group
    pools = {
        "spot": PoolConfig(
            asg="s",
            tier=Tier.SPOT,
            min_size=low,
            max_size=ceiling + group,
            on_demand_percentage=0,
            group_nodes=group,
            fallback="fall",
        ),
        "fall": PoolConfig(
            asg="f", tier=Tier.FALLBACK, min_size=0, max_size=ceiling + group, group_nodes=group
        ),
    }
    desired = max(desired, serving)
    views = {
        "spot": PoolView("s", desired, (), tuple(f"s{n}" for n in range(serving))),
        "fall": PoolView("f", 0),
    }
    memory, policy = Memory(), ScaleConfig()
    for now_s in (0.0, gap_s):
        memory, actions = plan(memory, pools, views, {"spot": demand}, now_s, policy)
        given_up = [a.instance_id for a in actions if isinstance(a, GiveUp)]
        assert len(given_up) == len(set(given_up)) and set(given_up) <= set(views["spot"].serving)  # 3
        for action in actions:
            if isinstance(action, SetDesired):
                pool = pools["spot"] if action.asg == "s" else pools["fall"]
                now = views["spot" if action.asg == "s" else "fall"].desired
                assert pool.floor <= action.size <= pool.ceiling and action.size % group == 0  # 1
                assert action.size > now  # 3
    grown = {a.asg: a.size for a in actions if isinstance(a, SetDesired)}
    done = {
        n: PoolView(v.asg, grown.get(v.asg, v.desired), v.starting, v.serving, v.leaving)
        for n, v in views.items()
    }
    _, more = plan(memory, pools, done, {"spot": demand}, gap_s, policy)
    assert not [a for a in more if isinstance(a, SetDesired)]  # 5
