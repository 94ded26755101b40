"""Invariants of the embedding desk, whatever comes, in any order.

1. Every row of an admitted request is taken exactly once, unless the request was dropped, shed or expired.
2. A batch is never larger than its bounds, unless it is one row.
3. The number of waiting tokens is the sum over what waits, and 0 in the end.
4. Without ageing, no row of a band is taken while a row of a higher one waits.
5. More load never turns a refusal into an admission.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from services.embedding.desk import EmbedDesk, Refused, Wish
from services.request import count_ids, pack_ids

BOUNDS = {"max_waiting": 6, "max_waiting_tokens": 120, "max_batch_tokens": 48, "max_batch_rows": 4}

wishes = st.tuples(
    st.lists(st.integers(1, 30), min_size=1, max_size=5),
    st.sampled_from(["a", "b", "c"]),
    st.integers(0, 2),
    st.sampled_from([0.5, 5.0, 60.0]),
)
steps = st.lists(
    st.one_of(
        wishes.map(lambda wish: ("add", wish)),
        st.just(("take", None)),
        st.floats(0.1, 3.0).map(lambda s: ("wait", s)),
        st.integers(1, 30).map(lambda ticket: ("drop", ticket)),
    ),
    max_size=60,
)


@given(steps)
@settings(max_examples=200, deadline=None)
def test_invariants(script: list[tuple[str, object]]) -> None:
    desk, now_s = EmbedDesk(**BOUNDS), 0.0
    missing: dict[int, set[int]] = {}
    ranks: dict[int, int] = {}
    sizes: dict[int, list[int]] = {}

    def gone(refusals: list[tuple[int, Refused]]) -> None:
        for ticket, _ in refusals:
            assert missing.pop(ticket), "whole requests go, not finished ones"

    def take() -> None:
        gone(desk.expire(now_s))
        waiting_ranks = {ranks[ticket] for ticket in missing}
        batch = desk.take(now_s)
        lengths = [count_ids(row.ids) for row in batch]
        assert len(batch) <= 1 or (len(batch) <= 4 and max(lengths) * len(batch) <= 48)
        assert bool(batch) == bool(missing)
        if batch and now_s < 30.0:
            assert ranks[batch[0].ticket] == min(waiting_ranks)
        for row in batch:
            missing[row.ticket].remove(row.number)
            assert count_ids(row.ids) == sizes[row.ticket][row.number]
            if not missing[row.ticket]:
                del missing[row.ticket]
        desk.done(sum(lengths), 0.01 * len(batch))

    for what, value in script:
        if what == "add":
            rows, tenant, rank, remaining_s = value  # type: ignore[misc]
            wish = Wish(tuple(pack_ids([7] * n) for n in rows), tenant, rank, remaining_s)
            ticket, displaced = desk.add(wish, now_s)
            gone(displaced)
            if isinstance(ticket, int):
                missing[ticket], ranks[ticket], sizes[ticket] = set(range(len(rows))), rank, rows
            else:
                assert not displaced
                again, _ = desk.add(wish, now_s)
                assert isinstance(again, Refused), "5"
        elif what == "take":
            take()
        elif what == "wait":
            now_s += float(value)  # type: ignore[arg-type]
        else:
            desk.drop(value)  # type: ignore[arg-type]
            missing.pop(value, None)  # type: ignore[call-overload]
        left = sum(sizes[ticket][number] for ticket, numbers in missing.items() for number in numbers)
        assert desk.waiting_tokens == left
    while missing:
        take()
    assert desk.waiting_tokens == 0 and len(desk) == 0
