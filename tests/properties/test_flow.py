"""Invariants of one choice's state machine (services/gateway/flow.py), for any order of events.

1. Exactly one of Finished, Failed is produced, and nothing after it.
2. Every lease that was granted is returned exactly once.
3. The ids handed out are the answer's tokens in order, none twice, none missing, at most `max_tokens`.
4. A resubmission carries exactly the tokens that were handed out.
"""

from __future__ import annotations

from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from services.errors import MeshError
from services.gateway.flow import (
    AskLease,
    ChoiceFlow,
    CloseStream,
    DropTicket,
    Effect,
    Failed,
    Finished,
    OpenStream,
    Phase,
    ReturnLease,
)
from services.gateway.migrate import Loss, RetryBudget
from services.link.messages import Acquire, Grant, Refuse, StreamFailed
from services.outcome import Outcome, Reason
from services.request import GenerateJob, SamplingParams, TokenFrame, pack_ids, unpack_ids

ANSWER = tuple(range(1000, 1012))

EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("grant"), st.integers(0, 3)),
        st.tuples(st.just("frame"), st.integers(1, 3)),
        st.tuples(st.just("repeat"), st.integers(1, 3)),
        st.tuples(st.just("gap"), st.integers(1, 3)),
        st.tuples(
            st.sampled_from(["lost", "preempt", "stale_grant", "stale_preempt", "failed", "repeat_grant"]),
            st.just(0),
        ),
        st.tuples(
            st.sampled_from(
                ["cancel", "deadline", "refuse", "stop", "unreached", "fatal", "yield", "promote"]
            ),
            st.just(0),
        ),
    ),
    max_size=40,
)


class World:
    """Plays the queue, the engine and the client around one flow, and checks the invariants."""

    def __init__(self, max_tokens: int = len(ANSWER)) -> None:
        ids = count(1)
        job = GenerateJob("r", pack_ids([1, 2, 3]), SamplingParams(max_tokens=max_tokens))
        template = Acquire(0, "r", "m", "t", "standard", 3, max_tokens, 0.0, 0.0)
        self.flow = ChoiceFlow(
            job, template, arrived_s=0.0, deadline_s=100.0, next_id=lambda: next(ids), budget=RetryBudget()
        )
        self.now_s = 0.0
        self.lease_ids = count(1)
        self.granted: set[int] = set()
        self.returned: list[int] = []
        self.ends: list[Effect] = []
        self.seen: list[int] = []
        self.last_grant: Grant | None = None
        self.apply(self.flow.start(0.0))

    def apply(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, ReturnLease):
                self.returned.append(effect.release.lease_id)
            if isinstance(effect, Finished | Failed):
                self.ends.append(effect)
            if isinstance(effect, OpenStream):
                assert unpack_ids(effect.submit.job.emitted_ids) == self.seen
            if isinstance(effect, AskLease):
                assert effect.acquire.emitted_tokens == len(self.seen)
                assert effect.acquire.age_s == self.now_s

    def frame(self, index: int, size: int) -> None:
        if self.flow.phase is not Phase.RUNNING:
            return
        ids = ANSWER[index : index + size]
        finish = "stop" if index + size >= len(ANSWER) else None
        new = self.flow.accept(TokenFrame(self.flow.stream_id, ids, finish=finish, index=index))
        if new is None:
            self.apply(self.flow.on_lost(self.now_s))
            return
        self.seen.extend(new)
        if finish:
            self.apply(self.flow.on_finish(finish))

    def grant(self, engine_id: str, group: str = "") -> None:
        grant = Grant(self.flow.ticket, next(self.lease_ids), engine_id, "a:1", 1, 0.0, group=group)
        self.granted.add(grant.lease_id)
        self.apply(self.flow.on_grant(grant, self.now_s))

    def step(self, event: str, size: int) -> None:
        self.now_s += 0.01
        flow, now_s = self.flow, self.now_s
        if event in ("grant", "stale_grant"):
            ticket = flow.ticket if event == "grant" else 999_999
            grant = Grant(ticket, next(self.lease_ids), f"e{size}", "a:1", 1, 0.0)
            self.granted.add(grant.lease_id)
            if event == "grant" and flow.phase is Phase.WAITING:
                self.last_grant = grant
            self.apply(flow.on_grant(grant, now_s))
        elif event == "repeat_grant" and flow.phase is Phase.RUNNING and self.last_grant is not None:
            self.apply(flow.on_grant(self.last_grant, now_s))
        elif event == "frame":
            self.frame(len(self.seen), size)
        elif event == "repeat":
            self.frame(max(0, len(self.seen) - size), size + 1)
        elif event == "gap":
            self.frame(len(self.seen) + size, 1)
        elif event == "lost":
            self.apply(flow.on_lost(now_s))
        elif event == "unreached":
            self.apply(flow.on_lost(now_s, Loss.UNREACHED))
        elif event == "preempt" and flow.grant is not None:
            self.apply(flow.on_preempt(flow.grant.lease_id, now_s))
        elif event == "stale_preempt":
            self.apply(flow.on_preempt(-1, now_s))
        elif event in ("failed", "fatal"):
            self.apply(
                flow.on_stream_failed(StreamFailed(flow.stream_id, "internal", "x", event == "failed"), now_s)
            )
        elif event == "cancel":
            self.apply(flow.on_cancel())
        elif event == "deadline":
            self.apply(flow.on_abort(MeshError(Reason.DEADLINE_EXCEEDED, "late")))
        elif event == "refuse":
            self.apply(flow.on_refuse(Refuse(flow.ticket, "queue_full", "full"), now_s))
        elif event == "stop":
            self.apply(flow.on_stop())
        elif event == "yield":
            effects = flow.on_yield()
            assert not (effects and self.seen), "what the client has seen is nobody else's"
            self.apply(effects)
        elif event == "promote":
            self.apply(flow.on_promoted(now_s))


@given(EVENTS, st.integers(1, len(ANSWER)))
def test_any_order_of_events_keeps_the_invariants(events: list[tuple[str, int]], max_tokens: int) -> None:
    world = World(max_tokens)
    for event, size in events:
        ended = len(world.ends)
        returned = len(world.returned)
        world.step(event, size)
        if ended:
            assert len(world.ends) == ended, "something after the end"
            assert len(world.returned) - returned <= 1, "only a stale grant may still be returned"
    if not world.ends:
        world.apply(world.flow.on_cancel())
    assert len(world.ends) == 1
    assert sorted(world.returned) == sorted(world.granted)
    assert tuple(world.seen) == ANSWER[: len(world.seen)]
    assert len(world.seen) <= max_tokens
    assert list(world.flow.emitted) == world.seen


def test_two_engines_dead_without_a_token_is_poison() -> None:
    world = World()
    for engine in range(2):
        world.step("grant", engine)
        world.step("lost", 0)
    assert isinstance(world.ends[0], Failed)
    assert world.ends[0].error.reason is Reason.POISON_REQUEST


def test_who_yields_gives_everything_back_and_asks_again_when_promoted() -> None:
    world = World()
    asked = world.flow.ticket
    assert world.flow.on_yield() == [DropTicket(asked)]
    world.step("grant", 0)  # it was on its way
    assert len(world.returned) == 1
    world.step("promote", 0)
    world.step("grant", 1)
    closed, returned = world.flow.on_yield()
    assert isinstance(closed, CloseStream)
    assert isinstance(returned, ReturnLease)
    world.apply([returned])
    assert world.flow.on_yield() == []
    world.step("promote", 0)
    assert world.flow.phase is Phase.WAITING


def test_ranks_of_one_group_count_once() -> None:
    world = World()
    for engine in range(3):
        world.grant(f"e{engine}", group="g")
        world.step("lost", 0)
    assert not world.ends
    world.grant("other", group="h")
    world.step("lost", 0)
    assert world.ends[0].error.reason is Reason.POISON_REQUEST


def test_silence_is_forgiven_longer_than_death() -> None:
    world = World()
    for engine in range(4):
        assert not world.ends
        world.step("grant", engine)
        world.apply(world.flow.on_lost(world.now_s, Loss.SILENT))
    assert world.ends[0].error.reason is Reason.POISON_REQUEST


def test_losses_with_progress_between_are_no_poison() -> None:
    world = World()
    for _ in range(5):
        world.step("grant", 0)
        world.step("frame", 1)
        world.step("lost", 0)
    assert not world.ends
    world.step("grant", 1)
    world.frame(5, 7)
    assert world.ends == [Finished("stop")]
    assert world.flow.num_migrations == 5


def test_death_after_the_last_token_finishes_without_another_engine() -> None:
    world = World(max_tokens=4)
    world.step("grant", 0)
    world.frame(0, 4)
    world.step("lost", 0)
    assert world.ends == [Finished("length")]


def test_an_empty_retry_budget_ends_the_request_with_a_reason() -> None:
    world = World()
    world.flow._budget = RetryBudget(burst_tokens=2)  # the prompt alone has 3
    world.step("grant", 0)
    world.step("frame", 1)
    world.step("lost", 0)
    assert isinstance(world.ends[0], Failed)
    assert world.ends[0].error.reason is Reason.ENGINE_LOST
    assert world.ends[0].outcome is Outcome.FAILED


def test_stop_closes_the_engine_stream() -> None:
    world = World()
    world.step("grant", 0)
    world.step("frame", 2)
    effects = world.flow.on_stop()
    assert [type(effect) for effect in effects] == [CloseStream, ReturnLease, Finished]
