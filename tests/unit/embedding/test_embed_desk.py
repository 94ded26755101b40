"""Which texts are embedded next, and which requests are refused."""

from __future__ import annotations

from services.embedding.desk import AGEING_S, EmbedDesk, Refused, Wish
from services.outcome import Reason
from services.request import pack_ids


def row(num_tokens: int) -> bytes:
    return pack_ids(range(1, num_tokens + 1))


def desk(**changes: int) -> EmbedDesk:
    bounds = {"max_waiting": 100, "max_waiting_tokens": 1000, "max_batch_tokens": 64, "max_batch_rows": 8}
    return EmbedDesk(**(bounds | changes))


def add(desk: EmbedDesk, *rows: int, now_s: float = 0.0, **wish: object) -> int:
    ticket, displaced = desk.add(Wish(tuple(map(row, rows)), **wish), now_s)  # type: ignore[arg-type]
    assert isinstance(ticket, int) and not displaced, (ticket, displaced)
    return ticket


def tickets(desk: EmbedDesk, now_s: float = 0.0) -> list[int]:
    return [taken.ticket for taken in desk.take(now_s)]


def test_a_batch_is_bounded_by_what_its_padding_costs() -> None:
    queue = desk()
    add(queue, 8, 8, 30, 8, 100)
    assert [len(taken.ids) // 4 for taken in queue.take(0.0)] == [8, 8], "three rows of 30 are 90 tokens"
    assert [len(taken.ids) // 4 for taken in queue.take(0.0)] == [30, 8]
    assert [len(taken.ids) // 4 for taken in queue.take(0.0)] == [100], "one row goes whatever it costs"
    assert not queue.take(0.0) and queue.waiting_tokens == 0


def test_vips_go_first_and_nobody_waits_for_ever() -> None:
    queue = desk(max_batch_rows=1)
    low = add(queue, 4, band_rank=2)
    high = add(queue, 4, band_rank=0)
    assert tickets(queue) == [high]
    later = add(queue, 4, band_rank=0, now_s=2.5 * AGEING_S)
    assert tickets(queue, 2.5 * AGEING_S) == [low], "it has aged into the band of the other, and was first"
    assert tickets(queue, 2.5 * AGEING_S) == [later]


def test_tenants_share_by_tokens_and_absence_is_no_credit() -> None:
    queue = desk(max_batch_rows=1)
    big = add(queue, *[10] * 20, tenant="big")
    assert [tickets(queue)[0] for _ in range(4)] == [big] * 4
    small = add(queue, *[10] * 4, tenant="small")
    order = [tickets(queue)[0] for _ in range(8)]
    assert order.count(small) == 4 and order.count(big) == 4, "from now on half each, no more"


def test_what_cannot_be_in_time_is_refused_at_once() -> None:
    queue = desk()
    queue.done(100, 1.0)
    add(queue, 100, 100)
    refused, _ = queue.add(Wish((row(50),), remaining_s=2.0), 0.0)
    assert isinstance(refused, Refused) and refused.reason is Reason.DEADLINE_UNREACHABLE
    assert abs(refused.retry_after_s - 0.5) < 1e-9
    add(queue, 50, remaining_s=2.6)


def test_small_requests_say_nothing_of_how_long_a_large_one_takes() -> None:
    """A text of three tokens takes 15 ms by itself, 2,000 of them a second and a half: not thirty."""
    queue = desk(max_waiting_tokens=100_000)
    for _ in range(10):
        add(queue, 3)
        assert len(queue.take(0.0)) == 1
        queue.done(3, 0.015, full=len(queue) > 0)
    add(queue, *[3] * 2000, remaining_s=10.0)
    batch = queue.take(0.0)
    queue.done(3 * len(batch), 0.012, full=len(queue) > 0)
    assert queue.tokens_per_s == 3 * len(batch) / 0.012
    queue.done(3, 0.015, full=False)
    assert queue.tokens_per_s == 3 * len(batch) / 0.012, "a lone text slows nobody's estimate"
    queue.done(64, 0.005, full=False)
    assert queue.tokens_per_s > 3 * len(batch) / 0.012, "but it may go faster than was known"


def test_what_is_late_is_never_computed() -> None:
    queue = desk()
    late, fine = add(queue, 5, remaining_s=1.0), add(queue, 5, remaining_s=9.0)
    assert [(t, r.reason) for t, r in queue.expire(1.0)] == [(late, Reason.DEADLINE_EXCEEDED)]
    assert tickets(queue, 1.0) == [fine]


def test_a_full_queue_sheds_the_lowest_band_and_refuses_its_own() -> None:
    queue = desk(max_waiting_tokens=100)
    queue.done(10, 1.0)
    batch = [add(queue, 40, band_rank=2), add(queue, 40, band_rank=2)]
    refused, displaced = queue.add(Wish((row(40),), band_rank=2), 0.0)
    assert isinstance(refused, Refused) and refused.reason is Reason.QUEUE_FULL and not displaced
    assert abs(refused.retry_after_s - 2.0) < 1e-9, "20 tokens too many, 10 a second"
    ticket, displaced = queue.add(Wish((row(40),), band_rank=0), 0.0)
    assert isinstance(ticket, int)
    assert [(t, r.reason) for t, r in displaced] == [(batch[1], Reason.SHED)], "the newest goes"


def test_a_request_that_was_begun_is_not_shed() -> None:
    queue = desk(max_waiting_tokens=100, max_batch_rows=1)
    begun = add(queue, 10, 90, band_rank=2)
    assert tickets(queue) == [begun]
    refused, displaced = queue.add(Wish((row(50),), band_rank=0), 0.0)
    assert isinstance(refused, Refused) and not displaced


def test_one_request_may_be_larger_than_the_bound_where_nothing_waits() -> None:
    queue = desk(max_waiting_tokens=10)
    add(queue, 30, 30)
    refused, _ = queue.add(Wish((row(1),)), 0.0)
    assert isinstance(refused, Refused)


def test_who_left_is_forgotten() -> None:
    queue = desk()
    gone = add(queue, 5, 5)
    queue.drop(gone)
    queue.drop(gone)
    assert len(queue) == 0 and queue.waiting_tokens == 0 and not queue.take(0.0)
