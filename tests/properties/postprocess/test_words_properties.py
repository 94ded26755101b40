"""Sensitive words in streams.

1. What comes out and the verdict are those of the whole text read at once, for every cut.
2. A whole text holds a word exactly when a stream of it is masked somewhere or blocked.
3. Masking changes characters in place: nothing is added, dropped or moved.
4. Held back is less than the longest word, invisible characters not counted.
5. What was masked holds no word any more, and a blocked stream shows a prefix of the text.
6. Folding a concatenation is concatenating the folds.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from hypothesis import given, settings
from hypothesis import strategies as st

from services.postprocess.folding import fold
from services.postprocess.words import WordList, WordStream

LETTERS = "abAｂ 敏感é\u200b-ﬁf\0\ud800"
TEXT = st.text(alphabet=LETTERS, max_size=30)
WORDS = st.lists(st.text(alphabet="ab 敏感eif", min_size=1, max_size=4), min_size=1, max_size=5)
CUTS = st.lists(st.integers(0, 30), max_size=10)
ON_MATCH = st.sampled_from(["mask", "block"])
OnMatch = Literal["mask", "block"]


def cut(text: str, cuts: list[int]) -> list[str]:
    marks = sorted({0, *(min(mark, len(text)) for mark in cuts), len(text)})
    return [text[a:b] for a, b in pairwise(marks)]


def run(words: WordList, parts: list[str], on_match: OnMatch) -> tuple[str, bool]:
    stream = WordStream(words, on_match)
    shown = "".join(map(stream.push, parts)) + stream.flush()
    return shown, stream.blocked


@settings(max_examples=60)
@given(WORDS, st.booleans(), TEXT, CUTS, ON_MATCH)
def test_1_the_cut_does_not_matter(
    listed: list[str], whole: bool, text: str, cuts: list[int], on_match: OnMatch
) -> None:
    words = WordList(listed, whole_words=whole)
    assert (
        run(words, cut(text, cuts), on_match) == run(words, [text], on_match) == run(words, [*text], on_match)
    )


@settings(max_examples=60)
@given(WORDS, st.booleans(), TEXT)
def test_2_and_3_whole_texts_and_streams_agree(listed: list[str], whole: bool, text: str) -> None:
    words = WordList(listed, whole_words=whole)
    masked, _ = run(words, [text], "mask")
    _, blocked = run(words, [text], "block")
    assert (words.find(text) is not None) == blocked == (masked != text)
    assert len(masked) == len(text)
    assert all(new in (old, "*") for new, old in zip(masked, text, strict=True))


@settings(max_examples=60)
@given(WORDS, TEXT, CUTS)
def test_4_hold_back_is_bounded(listed: list[str], text: str, cuts: list[int]) -> None:
    words = WordList(listed)
    stream, pushed, shown = WordStream(words), "", ""
    for part in cut(text, cuts):
        pushed += part
        shown += stream.push(part)
        held = fold(pushed[len(shown) :])
        assert len(held) <= words.max_chars + 1  # +1: a ligature is held whole


@settings(max_examples=60)
@given(WORDS, st.booleans(), TEXT)
def test_5_nothing_of_a_word_comes_out(listed: list[str], whole: bool, text: str) -> None:
    words = WordList(listed, whole_words=whole)
    masked, _ = run(words, [text], "mask")
    shown, blocked = run(words, [text], "block")
    if not whole:
        assert words.find(masked) is None
        assert words.find(shown) is None
    assert text.startswith(shown) and (blocked or shown == text)


@settings(max_examples=60)
@given(st.text(max_size=10), st.text(max_size=10))
def test_6_folding_is_per_character(left: str, right: str) -> None:
    assert fold(left + right) == fold(left) + fold(right)
