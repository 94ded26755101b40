"""Who is shut out, and for how long (penalty.py).

1. Nobody is shut out before more than `max_offences` within the window, nor where the box is off.
2. A time ends; each further one is twice as long, up to a bound.
3. An address that had a request served lately is never shut out, and one that is out comes in with it.
4. No address is shut out for what another one did; what is kept is bounded.
"""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from services.gateway import penalty
from services.gateway.penalty import FIRST_S, FORGET_S, LONGEST_S, TRUST_S, WINDOW_S, PenaltyBox

A, B = "10.0.0.1", "10.0.0.2"


def offend(box: PenaltyBox, address: str, now_s: float, num: int) -> list[bool]:
    return [box.offended(address, now_s) for _ in range(num)]


def test_one_too_many_shuts_out_and_says_so_once() -> None:
    box = PenaltyBox(3)
    assert offend(box, A, 5.0, 5) == [False, False, False, True, False]
    assert box.is_out(A, 5.0)
    assert not box.is_out(B, 5.0)
    assert box.all_out(5.0) == {A}
    assert not box.is_out(A, 5.0 + FIRST_S)
    assert box.all_out(5.0 + FIRST_S) == frozenset()


def test_offences_far_apart_do_not_add_up() -> None:
    box = PenaltyBox(3)
    for number in range(20):
        assert not box.offended(A, number * WINDOW_S)


def test_each_further_time_is_twice_as_long_up_to_a_bound() -> None:
    box, now_s, lengths = PenaltyBox(1), 0.0, list[float]()
    for _ in range(8):
        offend(box, A, now_s, 2)
        until_s = now_s
        while box.is_out(A, until_s):
            until_s += FIRST_S / 2
        lengths.append(until_s - now_s)
        now_s = until_s + 1.0
    assert lengths[:4] == [FIRST_S, 2 * FIRST_S, 4 * FIRST_S, 8 * FIRST_S]
    assert set(lengths[4:]) == {LONGEST_S}
    offend(box, A, now_s + FORGET_S + LONGEST_S, 2)
    assert not box.is_out(A, now_s + FORGET_S + LONGEST_S + FIRST_S)


def test_who_is_served_is_not_shut_out() -> None:
    box = PenaltyBox(1)
    box.served(A, 0.0)
    assert offend(box, A, TRUST_S, 9) == [False] * 9
    assert offend(box, A, TRUST_S + 1.0, 1) == [True]
    box.served(A, TRUST_S + 2.0)
    assert not box.is_out(A, TRUST_S + 2.0)


def test_off_it_keeps_nothing() -> None:
    box = PenaltyBox(0)
    box.served(A, 0.0)
    assert offend(box, A, 0.0, 100) == [False] * 100
    assert not box.is_out(A, 0.0)


def test_what_is_kept_is_bounded() -> None:
    box = PenaltyBox(1)
    for number in range(penalty.MAX_KNOWN + 5):
        offend(box, str(number), 0.0, 2)
    assert len(box.all_out(0.0)) == penalty.MAX_KNOWN
    assert not box.is_out("0", 0.0)


@given(
    st.integers(1, 4),
    st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.floats(0, 20)), max_size=60),
)
def test_nobody_is_out_without_cause(most: int, events: list[tuple[str, bool, float]]) -> None:
    box, now_s, offences = PenaltyBox(most), 0.0, Counter[str]()
    for address, good, wait_s in events:
        now_s += wait_s
        if good:
            box.served(address, now_s)
            assert not box.is_out(address, now_s)
        else:
            offences[address] += 1
            box.offended(address, now_s)
        assert box.all_out(now_s) == {each for each in "abc" if box.is_out(each, now_s)}
        assert all(offences[each] > most for each in box.all_out(now_s))
