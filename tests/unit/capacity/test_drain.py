"""The order in which a node goes, told as stories."""

from __future__ import annotations

from services.capacity import drain as d
from services.capacity.notices import Hook, Notice, Signal
from services.config_capacity import DrainConfig

I = "i-0123456789abcdef0"  # noqa: E741
HOOK = Hook("mesh-gpu-spot", "drain", "token")
POLICY = DrainConfig()
INTERRUPTION = Notice(Signal.INTERRUPTION, I, 1.0)


def run(*events: tuple[float, d.Event]) -> tuple[d.State, list[tuple[d.Effect, ...]]]:
    state, said = d.State(), list[tuple[d.Effect, ...]]()
    for now_s, event in events:
        state, effects = d.decide(state, event, now_s, POLICY)
        said.append(effects)
    return state, said


def test_a_notice_of_two_minutes() -> None:
    _, said = run((0.0, d.Noticed(INTERRUPTION, 120.0)))
    assert said == [(d.Cordon(I), d.MigrateStreams(I, 105.0), d.DrainNode(I, 105.0, True))]


def test_a_notice_of_thirty_ten_and_no_seconds() -> None:
    for remaining_s, within_s in ((30.0, 20.0), (10.0, 0.0), (0.0, 0.0)):
        _, said = run((0.0, d.Noticed(INTERRUPTION, remaining_s)))
        assert said == [(d.Cordon(I), d.MigrateStreams(I, within_s), d.DrainNode(I, within_s, True))]


def test_said_twice_done_once() -> None:
    _, said = run(
        (0.0, d.Noticed(INTERRUPTION, 120.0)),
        (1.0, d.Noticed(INTERRUPTION, 119.0)),
        (2.0, d.Noticed(INTERRUPTION, 118.0)),
    )
    assert said[1:] == [(), ()]


def test_a_rebalance_waits_for_the_replacement() -> None:
    _, said = run((0.0, d.Noticed(Notice(Signal.REBALANCE, I), None)), (60.0, d.ReplacementReady(I)))
    assert said == [(d.Replace(I),), (d.Cordon(I), d.DrainNode(I, None, True))]


def test_a_rebalance_without_a_replacement_changes_nothing() -> None:
    state, said = run(
        (0.0, d.Noticed(Notice(Signal.REBALANCE, I), None)),
        (899.0, d.Tick()),
        (900.0, d.Tick()),
        (901.0, d.ReplacementReady(I)),
    )
    assert said[1:] == [(), (), ()]
    assert state.nodes[I].phase is d.Phase.SERVING


def test_an_interruption_overtakes_a_rebalance() -> None:
    _, said = run((0.0, d.Noticed(Notice(Signal.REBALANCE, I), None)), (5.0, d.Noticed(INTERRUPTION, 120.0)))
    assert said[1] == (d.Cordon(I), d.MigrateStreams(I, 105.0), d.DrainNode(I, 105.0, True))


def test_an_interruption_gives_a_quiet_drain_a_deadline() -> None:
    rebalance = d.Noticed(Notice(Signal.REBALANCE, I), None)
    _, said = run((0.0, rebalance), (3.0, d.ReplacementReady(I)), (5.0, d.Noticed(INTERRUPTION, 60.0)))
    assert said[1:] == [
        (d.Cordon(I), d.DrainNode(I, None, True)),
        (d.MigrateStreams(I, 50.0), d.DrainNode(I, 50.0, True)),
    ]


def test_a_quiet_drain_does_not_last_for_ever() -> None:
    rebalance = d.Noticed(Notice(Signal.REBALANCE, I), None)
    _, said = run((0.0, rebalance), (3.0, d.ReplacementReady(I)), (902.0, d.Tick()), (903.0, d.Tick()))
    assert said[2:] == [(), (d.MigrateStreams(I, 105.0), d.DrainNode(I, 105.0, False))]


def test_the_hook_is_answered_when_the_node_has_drained() -> None:
    notice = Notice(Signal.TERMINATING, I, None, HOOK)
    _, said = run(
        (0.0, d.Noticed(notice, None)),
        (30.0, d.Drained(I)),
        (31.0, d.Drained(I)),
        (32.0, d.Noticed(notice, None)),
        (200.0, d.Tick()),
    )
    assert said[1] == (d.AnswerHook(I, HOOK),)
    assert said[2:] == [(), (), ()]


def test_the_hook_is_answered_at_the_deadline_at_the_latest() -> None:
    _, said = run(
        (0.0, d.Noticed(Notice(Signal.TERMINATING, I, None, HOOK), None)),
        (104.0, d.Tick()),
        (105.0, d.Tick()),
    )
    assert said[1:] == [(), (d.AnswerHook(I, HOOK),)]


def test_a_hook_that_comes_after_the_drain_is_answered_at_once() -> None:
    notice = Notice(Signal.TERMINATING, I, None, HOOK)
    _, said = run(
        (0.0, d.Noticed(INTERRUPTION, 120.0)), (20.0, d.Drained(I)), (21.0, d.Noticed(notice, None))
    )
    assert said[1:] == [(), (d.AnswerHook(I, HOOK),)]


def test_scaling_in_ends_with_a_termination() -> None:
    state, said = run((0.0, d.ScaleIn(I)), (40.0, d.Drained(I)), (70.0, d.Gone(I)))
    assert said[0][-1] == d.DrainNode(I, 105.0, False), (
        "nobody takes its engines' place: only a deadline ends them"
    )
    assert said[1] == (d.Terminate(I),)
    assert not state.nodes


def test_a_join_hook_is_the_nodes_own_business() -> None:
    state, said = run((0.0, d.Noticed(Notice(Signal.LAUNCHING, I, None, HOOK), None)))
    assert said == [()] and not state.nodes
