"""Deadlines in the queue's core, under any load.

1. What cannot end in time is granted nothing: no grant at or after the deadline, and none to engines at work when the
   least time that the answer takes, as the queue knows it, passes the deadline.
2. No false refusals: while an engine idles and nobody waits, nobody is refused whose deadline lies ahead, whatever was
   learnt before.
3. Adding load never raises admission: what is refused is refused also with more waiting (nothing being shed).
4. Every waiting request is answered by its deadline.
5. The bound on an answer's length is right: of what ends, hardly more than one in ten is shorter, also where most
   answers are cut.
6. Who would miss its deadline for it is not paused, unless a band is below its reserve.
"""

from __future__ import annotations

import random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.config import QueueConfig
from services.link.messages import Acquire, EngineLoad, EngineUp, Grant, Preempt, Progress, Refuse, Release
from services.outcome import Reason
from services.queue.events import Effect, Event, FromEngine, FromGateway, Tick, ToGateway
from services.queue.lengths import LengthBook, Lengths, bucket, floor_of
from services.queue.outlook import FIRST_PAUSE_S
from services.queue.scheduler import Scheduler
from tests.unit.queue.making import asking

STEP_S = 0.02
CONFIG = QueueConfig(max_queued=10_000, max_tenant_queued=40)

requests = st.tuples(
    st.sampled_from(("vip", "standard", "batch", "batch")), st.sampled_from("abc"), st.integers(1, 100),
    st.sampled_from((0.05, 0.3, 1.0, 2.0, 8.0)),
)  # fmt: skip
steps = st.lists(st.tuples(st.lists(requests, max_size=5), st.integers(0, 3)), min_size=4, max_size=14)


class Mesh:
    """One engine of four slots at STEP_S per token, run in steps of 0.1 s; every grant and refusal is checked."""

    def __init__(self, answer_share: float = 1.0) -> None:
        self.queue = Scheduler(CONFIG)
        self.now_s = 100.0
        self.share = answer_share
        self.asked: dict[int, Acquire] = {}
        self.deadlines: dict[int, float] = {}
        self.running: dict[int, list[int]] = {}
        self.waiting: set[int] = set()
        self.refused: list[Refuse] = []
        self.total = 0
        self.last = 0
        self.num_paused = 0
        self.decide(FromEngine(EngineUp("e0", "x:1", "m", 4, 100_000, 16, 4096)))

    def decide(self, event: Event) -> None:
        engine = self.queue.state.fleet.engines.get("e0")
        idle = engine is not None and engine.used == 0
        token_s = self.queue.state.fleet.token_s(self.now_s)
        pools, room_s = self.queue.state.pools, self.room_s()
        reserve_short = any(pools.below_reserve(band) for band in pools.reserving)
        effects = self.queue.decide(event, self.now_s)
        if not reserve_short:
            self.check_pauses(effects, min(room_s, self.room_s()))
        for effect in effects:
            assert isinstance(effect, ToGateway) or not self.asked
            message = effect.message if isinstance(effect, ToGateway) else None
            if isinstance(message, Grant):
                self.check_grant(message, 0.0 if idle else token_s)
                told = self.asked[message.ticket]
                left = max(1, int(self.share * told.max_tokens)) - told.emitted_tokens
                self.running[message.ticket] = [message.lease_id, max(1, left), 0]
                self.waiting.discard(message.ticket)
            elif isinstance(message, Refuse):
                assert message.ticket in self.waiting
                self.waiting.discard(message.ticket)
                self.refused.append(message)
            elif isinstance(message, Preempt):
                self.obey(message)

    def check_grant(self, grant: Grant, token_s: float) -> None:
        """1."""
        told, deadline_s = self.asked[grant.ticket], self.deadlines[grant.ticket]
        assert self.now_s < deadline_s
        band = self.queue.state.bands.index_of[told.band]
        least = self.queue.state.outlook.lengths.bound(told.tenant, band, told.max_tokens, self.now_s)
        assert self.now_s + max(1, least - told.emitted_tokens) * token_s <= deadline_s + 1e-9

    def room_s(self) -> float:
        """How long a pause takes, as the queue knows it."""
        return self.queue.state.outlook.pauses.room_s(self.now_s) or FIRST_PAUSE_S

    def check_pauses(self, effects: list[Effect], room_s: float) -> None:
        """6. A pause that ended in the same decision may have changed the measure a little."""
        for effect in effects:
            message = effect.message if isinstance(effect, ToGateway) else None
            if isinstance(message, Preempt):
                self.num_paused += 1
                entry = self.queue.state.gateways["g"][message.ticket]
                assert self.queue.state.outlook.slack_s(entry, self.now_s) >= 0.9 * room_s

    def ask(self, told: Acquire, deadline_s: float) -> None:
        self.asked[told.ticket], self.deadlines[told.ticket] = told, deadline_s
        self.waiting.add(told.ticket)
        self.decide(FromGateway("g", told))

    def arrive(self, band: str, tenant: str, tokens: int, patience_s: float) -> int:
        self.last += 1
        told = asking(self.last, band, tenant=tenant, max_tokens=tokens, remaining_s=patience_s)
        self.ask(told, self.now_s + patience_s)
        return self.last

    def obey(self, message: Preempt) -> None:
        _, _, made = self.running.pop(message.ticket)
        self.decide(FromGateway("g", Release(message.ticket, message.lease_id, 10, made, "preempted")))
        told, deadline_s = self.asked[message.ticket], self.deadlines[message.ticket]
        if deadline_s > self.now_s:
            self.last += 1
            self.ask(
                asking(
                    self.last, told.band, tenant=told.tenant, max_tokens=told.max_tokens, registered=True,
                    remaining_s=deadline_s - self.now_s, emitted_tokens=told.emitted_tokens + made,
                ),
                deadline_s,
            )  # fmt: skip

    def pass_time(self) -> None:
        """A tenth of a second: tokens, ends, cuts at deadlines, reports."""
        self.now_s += 0.1
        made = round(0.1 / STEP_S)
        told = {ticket: min(made, row[1] - row[2]) for ticket, row in self.running.items()}
        for ticket, tokens in told.items():
            self.running[ticket][2] += tokens
            self.total += tokens
        num_running = len(self.running)
        self.decide(FromGateway("g", Progress(tuple(told), tuple(told.values()))))
        for ticket in list(told):
            if ticket not in self.running:
                continue  # paused since
            lease_id, wanted, done = self.running[ticket]
            late = self.deadlines[ticket] <= self.now_s
            if done >= wanted or late:
                del self.running[ticket]
                outcome = "evicted" if late and done < wanted else "completed"
                self.decide(FromGateway("g", Release(ticket, lease_id, 10, done, outcome)))
        self.decide(FromEngine(EngineLoad("e0", num_running, 0, 50_000, STEP_S, self.total)))
        self.decide(Tick())
        self.queue.state.check_integrity()

    def play(self, script: list[tuple[list[tuple[str, str, int, float]], int]]) -> None:
        for arrivals, pause in script:
            for request in arrivals:
                self.arrive(*request)
            for _ in range(1 + pause):
                self.pass_time()
                assert all(self.deadlines[t] > self.now_s - 0.21 for t in self.waiting), "4"


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps, st.sampled_from((1.0, 0.5, 0.05)))
def test_1_and_4_undoable_work_gets_no_grant(
    script: list[tuple[list[tuple[str, str, int, float]], int]], share: float
) -> None:
    Mesh(share).play(script)


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps, requests)
def test_2_an_idle_engine_refuses_nobody(
    script: list[tuple[list[tuple[str, str, int, float]], int]], probe: tuple[str, str, int, float]
) -> None:
    mesh = Mesh()
    mesh.play(script)
    while mesh.running or mesh.waiting:
        mesh.pass_time()
    ticket = mesh.arrive(*probe)
    assert ticket in mesh.running


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps, st.lists(requests, min_size=1, max_size=20), requests)
def test_3_adding_load_never_raises_admission(
    script: list[tuple[list[tuple[str, str, int, float]], int]],
    more: list[tuple[str, str, int, float]],
    probe: tuple[str, str, int, float],
) -> None:
    lighter, heavier = Mesh(), Mesh()
    for mesh in (lighter, heavier):
        mesh.play(script)
    for request in more:
        heavier.arrive(*request)
    admitted: list[bool] = []
    for mesh in (lighter, heavier):
        before = len(mesh.refused)
        ticket = mesh.arrive(*probe)
        admitted.append(all(refusal.ticket != ticket for refusal in mesh.refused[before:]))
    assert admitted[0] or not admitted[1]


@given(st.integers(0, (1 << 24) - 1))
def test_5_buckets_hold_what_falls_into_them(tokens: int) -> None:
    index = bucket(tokens)
    assert floor_of(index) <= tokens
    assert tokens < 8 or floor_of(index) > 0.74 * tokens


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.integers(5, 300), st.integers(0, 300), st.sampled_from((0.0, 0.5, 0.9)))
def test_5_the_bound_is_low_but_not_by_much(seed: int, shortest: int, spread: int, cut_share: float) -> None:
    rng, lengths = random.Random(seed), Lengths()
    for i in range(600):
        whole = rng.randint(shortest, shortest + spread)
        cut = rng.random() < cut_share
        made = rng.randint(1, whole) if cut else whole
        lengths.learn((made, 10_000, not cut), 0.1 * i)
    bound = lengths.bound(10_000, 60.0)
    tenth = shortest + 0.1 * spread
    assert bound <= (tenth + 0.12 * spread + 1 if cut_share < 0.9 else shortest + spread)
    assert bound >= 0.7 * shortest
    assert lengths.bound(10_000, 60.0 + 61.0) == 1, "what was learnt long ago says nothing"


def test_5_a_tenant_of_which_little_is_known_is_like_its_band() -> None:
    book = LengthBook(2)
    for i in range(100):
        book.learn("long", 1, 400, 400, whole=True, now_s=0.01 * i)
    assert book.bound("other", 1, 1000, 1.0) == 1000, "all fill what they ask for"
    for i in range(100):
        book.learn("short", 1, 10, 400, whole=True, now_s=1.0 + 0.01 * i)
    assert book.bound("short", 1, 1000, 2.0) < 40
    assert book.bound("long", 1, 1000, 2.0) == 1000
    assert book.bound("other", 1, 1000, 2.0) < 40
    assert book.bound("long", 0, 1000, 2.0) == 1, "nothing is known of the other band"


def test_reasons_are_told_apart() -> None:
    mesh = Mesh()
    for _ in range(60):
        mesh.arrive("standard", "a", 40, 3.0)
        mesh.pass_time()
    reasons = {refusal.reason for refusal in mesh.refused}
    assert reasons == {Reason.DEADLINE_UNREACHABLE}
    assert all(refusal.retry_after_s > 0 for refusal in mesh.refused[-10:])


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 1000), st.sampled_from((0.8, 1.5, 3.0)))
def test_6_who_cannot_afford_a_pause_runs_on(seed: int, patience_s: float) -> None:
    rng, mesh = random.Random(seed), Mesh()
    for _ in range(40):
        for _ in range(3):
            mesh.arrive("batch", "a", rng.randint(5, 40), patience_s)
        if rng.random() < 0.5:
            mesh.arrive("vip", "b", rng.randint(5, 20), 8.0)
        mesh.pass_time()
        if rng.random() < 0.2:
            mesh.now_s += 0.3  # the engine stalls
    assert mesh.num_paused or patience_s < 3.0, "nothing was paused: nothing was tested"
