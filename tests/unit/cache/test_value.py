"""Answers as they are kept and replayed."""

from __future__ import annotations

import contextlib
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.answer import TokenText, ToolCallDelta
from services.cache import value
from services.cache.value import BadValue, CachedAnswer, CachedChoice

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
choices = st.builds(
    CachedChoice,
    text=texts,
    num_tokens=st.integers(0, 5000),
    finish=st.sampled_from(["stop", "length", "tool_calls", "content_filter"]),
    token_ids=st.binary(max_size=16),
    logprobs=st.none() | st.tuples(st.builds(TokenText, texts, st.binary(max_size=4), st.floats(-9, 0))),
    tool_calls=st.just(()) | st.tuples(st.builds(ToolCallDelta, st.integers(0, 3), texts, texts, texts)),
)
answers = st.builds(
    CachedAnswer,
    choices=st.lists(choices, min_size=1, max_size=3).map(tuple),
    prompt_tokens=st.integers(0, 10**6),
    completion_tokens=st.integers(0, 10**6),
)


@settings(max_examples=40)
@given(answers, st.sampled_from([0, 20, 10**6]))
def test_what_goes_in_comes_out(answer: CachedAnswer, bound: int) -> None:
    assert value.decode(value.encode(answer, compress_over_bytes=bound)) == answer


@settings(max_examples=40)
@given(answers, st.sampled_from([0, 7]))
def test_a_replay_says_the_same(answer: CachedAnswer, piece_chars: int) -> None:
    deltas = list(value.replay(answer, piece_chars))
    for number, choice in enumerate(answer.choices):
        own = [delta for delta in deltas if delta.choice == number]
        assert "".join(delta.text for delta in own) == choice.text
        assert sum(delta.num_tokens for delta in own) == choice.num_tokens
        assert [delta.finish for delta in own] == [None] * (len(own) - 1) + [choice.finish]
        assert own[-1].logprobs == choice.logprobs
        assert own[-1].tool_calls == choice.tool_calls


@given(st.binary(max_size=80))
def test_garbage_is_a_bad_value(garbage: bytes) -> None:
    with pytest.raises(BadValue):
        value.decode(b"\x01\xc1" + garbage)
    with pytest.raises(BadValue):
        value.decode(b"\x07" + garbage)
    with contextlib.suppress(BadValue):
        value.decode(b"\x02" + garbage)


@settings(max_examples=40)
@given(answers, st.data())
def test_a_truncated_value_is_a_bad_value(answer: CachedAnswer, data: st.DataObject) -> None:
    encoded = value.encode(answer, compress_over_bytes=data.draw(st.sampled_from([0, 10**6])))
    with pytest.raises(BadValue):
        value.decode(encoded[: data.draw(st.integers(0, len(encoded) - 1))])


def test_a_bomb_does_not_unpack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(value, "MAX_DECODED_BYTES", 1000)
    with pytest.raises(BadValue):
        value.decode(b"\x02" + zlib.compress(b"a" * 100_000))


def test_large_values_are_compressed() -> None:
    answer = CachedAnswer((CachedChoice("abc " * 5000, 5000, "stop"),), 10, 5000)
    assert len(value.encode(answer)) < 1000
    assert value.encode(answer)[0] == value.ZLIB
