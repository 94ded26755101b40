"""Leases without a queue: the invariants of services/queue/hand_on.py, by their numbers."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from services.link.messages import Acquire, Grant
from services.outcome import Outcome
from services.queue.hand_on import HAND_ON_S, HandOn

BANDS, MODELS, REVISIONS, ENGINES = ("vip", "batch"), ("m", "n"), ("", "r1", "r2"), ("e0", "e1")
OUTCOMES = ("completed", "cancelled", "evicted", "lost", "handed_back", "preempted", "failed")


@st.composite
def wishes(draw: st.DrawFn, ticket: int) -> Acquire:
    return Acquire(
        ticket, f"r{ticket}", draw(st.sampled_from(MODELS)), "t", draw(st.sampled_from(BANDS)),
        draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(0, 9)) * 1.0, draw(st.integers(-1, 9)) * 1.0,
        avoid=draw(st.sampled_from(((), ("e0",)))), preemptible=draw(st.booleans()),
        revision=draw(st.sampled_from(REVISIONS)),
    )  # fmt: skip


@given(st.data())
def test_nothing_grows_and_nothing_changes_place(data: st.DataObject) -> None:
    """1 to 4: over many hand-ons, every lease is with one request at most, in its band, model, size and revision."""
    book, running = HandOn(), dict[int, tuple[Grant, Acquire]]()
    for number in range(data.draw(st.integers(1, 4))):
        grant = Grant(number, 100 + number, data.draw(st.sampled_from(ENGINES)), "a:1", 1, 0.0, revision="r1")
        running[number] = grant, data.draw(wishes(number))
    first = {grant.lease_id: wish for grant, wish in running.values()}
    granted, next_ticket, spoilt = len(running), 10, set[int]()
    book.queue_died(0.0)
    for _ in range(8):
        if running and data.draw(st.booleans()):
            grant, wish = running.pop(data.draw(st.sampled_from(sorted(running))))
            outcome = data.draw(st.sampled_from(OUTCOMES))
            book.returned(grant, wish, outcome)
            if outcome not in ("completed", "cancelled", "evicted"):
                spoilt.add(grant.lease_id)
        waiting = [data.draw(wishes(next_ticket + i)) for i in range(data.draw(st.integers(0, 3)))]
        next_ticket += len(waiting)
        for wish, grant in book.match(waiting, 1.0):
            was = first[grant.lease_id]
            assert grant.ticket == wish.ticket and grant.lease_id not in spoilt
            assert (wish.band, wish.model) == (was.band, was.model)
            assert wish.prompt_tokens + wish.max_tokens <= was.prompt_tokens + was.max_tokens
            assert wish.preemptible or not was.preemptible
            assert wish.revision in ("", "r1") and grant.engine_id not in wish.avoid and wish.remaining_s > 0
            running[wish.ticket] = grant, wish
        held = Counter(grant.lease_id for grant, _ in running.values())
        held += Counter(spare.grant.lease_id for spare in book.spares)
        assert all(count == 1 for count in held.values())
        assert len(held) + len(spoilt) == granted


def spare(book: HandOn, wish: Acquire) -> None:
    book.returned(Grant(1, 7, "e0", "a:1", 1, 0.0), wish, Outcome.COMPLETED)


def wish(ticket: int, age_s: float) -> Acquire:
    return Acquire(ticket, f"r{ticket}", "m", "t", "vip", 1, 1, age_s, 9.0)


def test_the_oldest_goes_first() -> None:
    book = HandOn()
    book.queue_died(0.0)
    spare(book, wish(1, 0.0))
    assert [w.ticket for w, _ in book.match([wish(2, 1.0), wish(3, 3.0), wish(4, 2.0)], 1.0)] == [3]
    assert not book.spares


@given(st.floats(0.0, 2 * HAND_ON_S), st.booleans())
def test_it_ends(after_s: float, answered: bool) -> None:
    """5: nothing without a dead queue, nothing after its time, nothing once another answers."""
    book = HandOn()
    spare(book, wish(1, 0.0))
    assert not book.match([wish(2, 0.0)], 0.0)
    book.queue_died(0.0)
    if answered:
        book.queue_answers()
    got = book.match([wish(2, 0.0)], after_s)
    assert bool(got) == (after_s < HAND_ON_S and not answered)
