"""Invariants 1–4 of services/conversations/turns.py, and that records come back as they were."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from services.conversations.record import Earlier, as_items, decode, encode
from services.conversations.turns import newest_that_fit, starts_of, without

Roles = st.lists(
    st.sampled_from(["user", "assistant", "tool", "system", "developer"]), min_size=1, max_size=24
)


def told(roles: list[str]) -> list[dict[str, object]]:
    return [{"role": role, "content": str(place)} for place, role in enumerate(roles)]


@given(Roles, st.integers(0, 30))
def test_what_fits_is_the_newest_and_the_most(roles: list[str], room: int) -> None:
    messages, asked = told(roles), 0

    async def fits(some: list[dict[str, object]]) -> bool:
        nonlocal asked
        asked += 1
        return len(some) <= room

    kept = asyncio.run(newest_that_fit(messages, fits))
    places = [int(str(message["content"])) for message in kept]
    assert places == sorted(set(places)), "1"
    starts = starts_of(messages)
    stays = {place for place, role in enumerate(roles) if role in ("system", "developer")}
    assert stays | set(range(starts[-1], len(roles))) <= set(places), "2"
    others = [place for place in places if place not in stays]
    assert not others or [p for p in range(others[0], len(roles)) if p not in stays] == others, "3"
    candidates = [without(messages, number) for number in range(len(starts))]
    assert kept in candidates, "whole turns"
    fitting = [len(some) for some in candidates if len(some) <= room]
    assert len(kept) == (max(fitting) if fitting else min(map(len, candidates))), "4"
    assert asked <= 2 + len(starts).bit_length()


Json: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3)
    ),
    max_leaves=8,
)
Objects: Any = st.dictionaries(st.text(st.characters(codec="utf-8")), Json, max_size=4)


@given(
    Objects, st.lists(Objects, max_size=3), st.lists(st.tuples(st.text(max_size=5), st.integers(0, 2**40)))
)
def test_a_record_comes_back_as_it_was(
    response: dict[str, Any], items: list[dict[str, Any]], before: list[tuple[str, int]]
) -> None:
    response.pop("output", None)
    earlier = tuple(Earlier(*one) for one in before)
    turn = decode(encode(response, items, earlier))
    assert turn is not None
    assert (turn.response, turn.items, turn.before) == (response, items, earlier)


@given(st.binary(max_size=60) | Json.map(lambda value: repr(value).encode()))
def test_bytes_that_are_no_record_are_none(record: bytes) -> None:
    assert decode(record) is None


def test_another_versions_record_is_none() -> None:
    assert decode(encode({}, [], ()).replace(b'"version":1', b'"version":2')) is None
    assert decode(encode({"output": 7}, [], ())) is None


def test_a_text_is_a_message_of_the_user() -> None:
    part = {"type": "input_text", "text": "Hi"}
    assert as_items("Hi") == [{"type": "message", "role": "user", "content": [part]}]
    assert as_items([{"role": "user", "content": "Hi"}, {"type": "reasoning"}]) == [
        {"type": "message", "role": "user", "content": "Hi"},
        {"type": "reasoning"},
    ]
