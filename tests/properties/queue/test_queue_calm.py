"""The bound on steps beside a band that wants them short (`max_slowdown`), under any load.

1. While the band has traffic, nobody of a lower band (its reserve apart) is granted a slot beyond the bound of its
   engine; so is nobody whose grant would not begin at once.
2. Nobody of the band itself waits while any slot is free: the bound holds others back, not those whom it is for.
3. Bounds agree with the step times that engines tell: s(bound) ≤ slowdown · s(1) < s(bound + 1).
4. What cannot be told is tried: an engine that was always full has its bound soon. Steps that do not grow bound nobody.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from services.config import BandConfig, QueueConfig
from services.link.messages import EngineLoad, EngineUp, Grant, Preempt, Release
from services.queue.calm import UNBOUNDED, CalmDepth
from services.queue.events import Event, FromEngine, FromGateway, SetLimits, Tick, ToGateway
from services.queue.scheduler import Scheduler
from tests.unit.queue.making import asking

BANDS = (
    BandConfig(
        name="vip", rank=0, reserved_share=0.25, preemptible=False, pauses_lower=True, max_slowdown=1.3
    ),
    BandConfig(name="standard", rank=1),
    BandConfig(name="batch", rank=2),
)
steps = st.lists(
    st.tuples(st.lists(st.sampled_from(("vip", "standard", "batch")), max_size=6), st.integers(0, 3)),
    min_size=12, max_size=30,
)  # fmt: skip


class Mesh:
    """One engine of eight slots, steps of 10 ms and 2 ms per stream; every grant is checked."""

    def __init__(self) -> None:
        self.queue = Scheduler(QueueConfig(bands=BANDS))
        self.now_s, self.last, self.total = 100.0, 0, 0
        self.held: dict[int, Grant] = {}
        self.band: dict[int, str] = {}
        self.bounded = 0
        self.decide(FromEngine(EngineUp("e0", "x:1", "m", 8, 100_000, 16, 4096)))
        self.engine = self.queue.state.fleet.engines["e0"]

    def decide(self, event: Event) -> None:
        effects = self.queue.decide(event, self.now_s)
        self.queue.state.check_integrity()
        messages = [e.message for e in effects if isinstance(e, ToGateway)]
        for message in messages:
            if isinstance(message, Grant):
                self.held[message.ticket] = message
        if self.last:
            self.check([self.band[m.ticket] for m in messages if isinstance(m, Grant)])
        for message in messages:
            if isinstance(message, Preempt):
                del self.held[message.ticket]
                self.decide(FromGateway("g", Release(message.ticket, message.lease_id, 1, 0, "preempted")))

    def check(self, granted: list[str]) -> None:
        engine, state = self.engine, self.queue.state
        spared = state.calm.strictest(self.now_s)[0] == 0
        if spared and granted and granted[-1] != "vip":
            self.bounded += engine.calm.streams < UNBOUNDED
            assert engine.used <= engine.capacity_at_once, "1"
        if len(state.bands.all[0].own):
            assert engine.used >= engine.capacity, "2"

    def step(self, bands: list[str], ends: int) -> None:
        self.now_s += 0.1
        for ticket in list(self.held)[:ends]:
            grant = self.held.pop(ticket)
            self.decide(FromGateway("g", Release(ticket, grant.lease_id, 1, 9, "completed")))
        self.total += len(self.held)
        used = len(self.held)
        self.decide(FromEngine(EngineLoad("e0", used, 0, 90_000, 0.01 + 0.002 * used, self.total)))
        for band in bands:
            self.last += 1
            self.band[self.last] = band
            self.decide(FromGateway("g", asking(self.last, band, remaining_s=3600.0)))
        self.decide(Tick())


@settings(max_examples=25, deadline=None)
@given(steps)
def test_1_and_2_lower_bands_keep_to_the_bound_and_the_band_does_not(
    script: list[tuple[list[str], int]],
) -> None:
    mesh = Mesh()
    for bands, ends in script:
        mesh.step(bands, ends)


def test_the_bound_is_met_by_something() -> None:
    mesh = Mesh()
    for number in range(60):
        mesh.step(["batch", "batch", "vip"] if number % 5 == 0 else ["batch"] * (number % 3), number % 3)
    assert mesh.bounded > 5


def settled(fixed_s: float, stream_s: float, slowdown: float, reports: int = 900) -> list[int]:
    """Bounds of an engine behind a long line of waiting requests: its batch is what the bound allows, 16 at most, and
    moves by one stream per step, down as up."""
    depth, now_s, batch, bounds = CalmDepth(), 0.0, 16, list[int]()
    for _ in range(reports):
        now_s += 0.1
        batch += (batch < min(16, depth.streams)) - (batch > depth.streams)
        depth.look(batch, fixed_s + stream_s * batch, slowdown, now_s)
        bounds.append(depth.streams)
    return bounds


@settings(max_examples=40, deadline=None)
@given(st.floats(1e-4, 0.1), st.floats(1e-5, 0.02), st.floats(1.05, 4.0))
def test_3_and_4_bounds_agree_with_step_times(fixed_s: float, stream_s: float, slowdown: float) -> None:
    bound = settled(fixed_s, stream_s, slowdown, 70)[-1]
    most_s = slowdown * (fixed_s + stream_s)
    if bound < UNBOUNDED:
        assert fixed_s + stream_s * bound <= most_s * (1 + 1e-3)
    assert fixed_s + stream_s * (bound + 1) >= most_s * (1 - 1e-3)


def test_4_it_is_tried_again_now_and_then_and_held_in_between() -> None:
    bounds = settled(0.01, 0.001, 1.5)
    assert bounds[0] == 8, "half of what it had"
    held = bounds[40:]
    assert set(held) == {6, 3}, "1.5 · 11 ms = 10 ms + 6.5 · 1 ms; half of it is tried"
    assert held.count(6) >= 0.95 * len(held)


def test_the_bound_is_set_and_lifted_while_requests_run() -> None:
    mesh = Mesh()
    vip, *others = BANDS
    for slowdown, most in ((1.3, 3), (0.0, 8), (1.3, 3)):
        bands = (vip.model_copy(update={"max_slowdown": slowdown}), *others)
        mesh.decide(SetLimits(QueueConfig(bands=bands)))
        for number in range(40):
            mesh.step(["batch", "batch", "vip"] if number % 4 == 0 else ["batch"] * 3, 2)
        lower = [ticket for ticket in mesh.held if mesh.band[ticket] != "vip"]
        assert len(lower) <= most
        assert slowdown or len(mesh.held) >= 7


def test_4_steps_that_do_not_grow_are_not_bounded() -> None:
    assert settled(0.02, 0.0, 1.2)[40:].count(UNBOUNDED) > 800
