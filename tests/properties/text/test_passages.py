"""Invariants of services/text/passages.py: nothing is lost between segments, nothing is given twice."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from services.request import Document
from services.text.passages import Segment, choose, cut, with_passages


@st.composite
def tokenized(draw: st.DrawFn) -> tuple[int, list[tuple[int, int]]]:
    """Characters of a text, and the tokens in it: some touch, some have spaces between them, none overlap."""
    offsets: list[tuple[int, int]] = []
    at = draw(st.integers(0, 3))
    for width, gap in draw(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 2)), max_size=120)):
        offsets.append((at, at + width))
        at += width + gap
    return at + draw(st.integers(0, 3)), offsets


@given(tokenized(), st.integers(2, 40))
def test_segments_cover_the_text_and_overlap_by_a_fifth(
    text: tuple[int, list[tuple[int, int]]], size: int
) -> None:
    num_chars, offsets = text
    segments = cut(3, num_chars, offsets, size)
    if not offsets:
        assert segments == []
        return
    assert segments[0].start == 0 and segments[-1].end == num_chars
    assert all(segment.document == 3 for segment in segments)
    inside = [
        [i for i, (first, behind) in enumerate(offsets) if segment.start <= first and behind <= segment.end]
        for segment in segments
    ]
    assert all(len(tokens) <= size for tokens in inside)
    assert sorted({i for tokens in inside for i in tokens}) == list(range(len(offsets)))
    for before, after in pairwise(segments):
        assert after.start <= before.end
    for one, other in pairwise(inside):
        assert len(set(one) & set(other)) >= -(-size // 5)


@given(st.lists(tokenized(), min_size=1, max_size=4), st.integers(2, 30), st.integers(1, 16), st.randoms())
def test_what_is_given_is_in_order_and_once(
    texts: list[tuple[int, list[tuple[int, int]]]], size: int, most: int, random: object
) -> None:
    segments = [one for i, (chars, offsets) in enumerate(texts) for one in cut(i, chars, offsets, size)]
    scores = [random.choice((0.1, 0.5, 0.9)) for _ in segments]  # type: ignore[attr-defined]
    passages = choose(segments, scores, most)
    spans = [(one.document, one.start, one.end) for one in passages]
    assert spans == sorted(spans) and len(passages) <= most
    for (document, _, end), (after, start, _) in pairwise(spans):
        assert document < after or end < start
    best = sorted(range(len(segments)), key=lambda i: (-scores[i], i))[:most]
    covered = {(one.document, at) for one in passages for at in range(one.start, one.end)}
    assert covered == {(s.document, at) for s in (segments[i] for i in best) for at in range(s.start, s.end)}


def test_passages_stand_before_the_question_under_their_titles() -> None:
    documents = (Document("alpha beta gamma", "Greek"), Document("one two"))
    passages = choose([Segment(0, 0, 5), Segment(0, 11, 16), Segment(1, 0, 7)], [0.2, 0.9, 0.5], 2)
    chat: list[dict[str, object]] = [
        {"role": "system", "content": "short"},
        {"role": "user", "content": "who?"},
    ]
    before, last = with_passages(chat, documents, passages)
    assert before == chat[0] and chat[1]["content"] == "who?"
    assert last == {"role": "user", "content": "[1] Greek\ngamma\n\n[2]\none two\n\nwho?"}
