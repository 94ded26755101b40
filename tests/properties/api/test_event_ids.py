"""A client's place in an answer (services/api/event_ids.py), for any answer, any cut and any merging of events.

1. An id that was written is read back as the same place.
2. What follows a place is exactly what the client lacks, whatever was merged on the way there.
3. An answer that differs before the place is refused, whatever is different about it.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.answer import Delta, ToolCallDelta, joined_calls
from services.api.event_ids import Cursor, Rest, parse, request_of
from services.errors import RequestError
from services.gateway.http_responders import merge
from services.outcome import Reason


@st.composite
def answers(draw: st.DrawFn) -> tuple[int, list[Delta]]:
    """Deltas of one to three choices in any order; each but the last of a choice has tokens, and text or a piece of a
    tool call."""
    num_choices = draw(st.integers(1, 3))
    lanes: list[list[Delta]] = []
    for choice in range(num_choices):
        sizes = draw(st.lists(st.integers(1, 3), max_size=6))
        lane, calls = list[Delta](), 0
        for size in sizes:
            text = draw(st.text(min_size=1, max_size=4))
            if not draw(st.booleans()):
                lane.append(Delta(choice, text, num_tokens=size))
                continue
            begins = calls == 0 or draw(st.booleans())
            calls += begins
            piece = ToolCallDelta(calls - 1, text, "f" * begins, "id" * begins)
            lane.append(Delta(choice, "", tool_calls=(piece,), num_tokens=size))
        last = Delta(choice, draw(st.text(max_size=2)), "stop", num_tokens=draw(st.integers(0, 2)))
        lanes.append([*lane, last])
    order = draw(st.permutations([choice for choice, lane in enumerate(lanes) for _ in lane]))
    feeds = [iter(lane) for lane in lanes]
    return num_choices, [next(feeds[choice]) for choice in order]


def read(deltas: list[Delta], num_choices: int, cuts: list[int]) -> tuple[list[Delta], Cursor]:
    """What a client of `deltas` gets when events are merged between `cuts`, and where it is then."""
    cursor, got, rest = Cursor(num_choices), list[Delta](), list(deltas)
    for size in cuts:
        piece, rest = rest[:size], rest[size:]
        for delta in merge(piece):
            cursor.advance(delta)
            got.append(delta)
    return got, cursor


def texts(deltas: list[Delta], num_choices: int) -> list[tuple[str, list[ToolCallDelta]]]:
    """Text and calls of each choice."""
    return [
        (
            "".join(delta.text for delta in deltas if delta.choice == choice),
            list(joined_calls(one for delta in deltas if delta.choice == choice for one in delta.tool_calls)),
        )
        for choice in range(num_choices)
    ]


@settings(max_examples=50)
@given(answer=answers(), data=st.data())
def test_the_rest_is_what_is_lacking(answer: tuple[int, list[Delta]], data: Any) -> None:
    num_choices, deltas = answer
    cuts = data.draw(st.lists(st.integers(1, 4), max_size=4))
    got, cursor = read(deltas, num_choices, cuts)
    seen = cursor
    if cursor.text() != b"o0":
        name = "req-1/" + cursor.text().decode()
        assert request_of(name) == "req-1"
        seen = parse(name, num_choices)
        assert (seen.counts, seen.checks, seen.finished) == (cursor.counts, cursor.checks, cursor.finished)
        assert seen.calls == cursor.calls
    rest = Rest(seen)
    lacking = [delta for delta in deltas if not rest.skips(delta)]
    rest.check_end()
    assert texts(got + lacking, num_choices) == texts(deltas, num_choices)
    assert sum(delta.finish is not None for delta in got + lacking) == num_choices
    assert sum(d.num_tokens for d in got + lacking) == sum(d.num_tokens for d in deltas)


@settings(max_examples=50)
@given(answer=answers(), data=st.data())
def test_another_answer_is_refused(answer: tuple[int, list[Delta]], data: Any) -> None:
    num_choices, deltas = answer
    got, cursor = read(deltas, num_choices, data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)))
    at = data.draw(st.integers(0, len(got) - 1))
    if not (got[at].text or got[at].tool_calls):
        return
    other = list(deltas)
    number = next(
        i
        for i, delta in enumerate(deltas)
        if delta.choice == got[at].choice and (delta.text or delta.tool_calls)
    )
    change = data.draw(st.sampled_from(["text", "tokens", "gone"]))
    if change == "text" and deltas[number].tool_calls:
        (piece,) = deltas[number].tool_calls
        piece = msgspec.structs.replace(piece, arguments=piece.arguments + "x")
        other[number] = msgspec.structs.replace(other[number], tool_calls=(piece,))
    elif change == "text":
        other[number] = msgspec.structs.replace(other[number], text=other[number].text + "x")
    elif change == "tokens":
        other[number] = msgspec.structs.replace(other[number], num_tokens=other[number].num_tokens + 1)
    else:
        del other[number]
        if deltas[number].finish is not None:
            return
    rest = Rest(cursor)
    with pytest.raises(RequestError) as refused:
        read_on(rest, other)
    assert refused.value.reason is Reason.RESUME_DIVERGED


def read_on(rest: Rest, deltas: list[Delta]) -> None:
    for delta in deltas:
        rest.skips(delta)
    rest.check_end()


@given(st.text(max_size=40).filter(lambda text: "/" not in text))
def test_nonsense_is_refused_by_name(text: str) -> None:
    with pytest.raises(RequestError) as refused:
        request_of(text)
    assert (refused.value.reason, refused.value.param) == (Reason.INVALID_FIELD, "last-event-id")
