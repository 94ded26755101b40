"""Sensitive words: which spellings match, where, and what happens to them."""

from __future__ import annotations

import random

import pytest

from services.postprocess.folding import fold
from services.postprocess.words import WordList, WordStream


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("ＡＢＣ１２", "abc12"),  # full width
        ("ﾃﾞ", "テ\u3099"),  # half-width kana, its voicing mark stays
        ("Straße", "strasse"),
        ("Ünïcödé", "unicode"),
        ("b\u200ba\u00add\ufe0f", "bad"),
        ("ﬁ㎏①", "fikg1"),
        ("한국", "한국"),
        ("İ", "i"),
    ],
)
def test_folding(text: str, folded: str) -> None:
    assert fold(text) == folded


@pytest.mark.parametrize(
    ("word", "text", "found"),
    [
        ("bad", "so bad!", True),
        ("bad", "BAD", True),
        ("bad", "ｂａｄ idea", True),
        ("bad", "b\u200bad", True),
        ("bad", "badly", False),
        ("bad", "a badge", False),
        ("bad", "bad_word", True),
        ("bad", "bád", True),
        ("two words", "two  words", False),
        ("two words", "my two words.", True),
        ("敏感", "这是敏感词", True),
        ("敏感", "敏 感", False),
        ("敏感gong", "很敏感gong吗", True),
        ("敏感gong", "很敏感gongs", False),
        ("плохо", "Всё ПЛОХО", True),
        ("плохо", "неплохо", False),
        ("ἀγορά", "αγορα", True),
        ("bad", "\0bad\0", True),
        ("bad", "b\0ad", False),
        ("bad", "\ud800bad\ud800", True),
    ],
)
def test_which_spellings_match(word: str, text: str, found: bool) -> None:
    words = WordList([word])
    assert (words.find(text) is not None) is found
    stream = WordStream(words, "block")
    stream.push(text)
    stream.flush()
    assert stream.blocked is found


def test_without_whole_words_anything_that_contains_it_matches() -> None:
    words = WordList(["bad"], whole_words=False)
    assert words.find("Badge") == "bad"
    stream = WordStream(words)
    assert stream.push("a badge") + stream.flush() == "a ***ge"


def test_every_character_of_a_word_is_masked_and_nothing_else() -> None:
    stream = WordStream(WordList(["bad word", "敏感词"]), mask="#")
    assert stream.push("A Ｂad\u200b Word, 敏感词!") + stream.flush() == "A #########, ###!"


def test_a_character_that_folds_to_several_is_masked_whole() -> None:
    stream = WordStream(WordList(["xf"], whole_words=False))
    assert stream.push("axﬁb") + stream.flush() == "a**b"


def test_overlapping_words_are_all_masked() -> None:
    stream = WordStream(WordList(["ab", "bcd"], whole_words=False))
    assert stream.push("ab") + stream.push("cde") + stream.flush() == "****e"


def test_text_that_begins_no_word_passes_at_once() -> None:
    stream = WordStream(WordList(["敏感"]))
    assert stream.push("Hello, ") == "Hello, "
    assert stream.push("你好") == "你好"


def test_only_what_begins_a_word_is_held() -> None:
    stream = WordStream(WordList(["敏感词"]))
    assert stream.push("这敏") == "这"
    assert stream.push("感") == ""
    assert stream.push("的") == "敏感的"


def test_a_word_at_the_very_end_waits_for_the_end() -> None:
    stream = WordStream(WordList(["bad"]))
    assert stream.push("bad") == ""
    assert stream.flush() == "***"
    longer = WordStream(WordList(["bad"]))
    assert longer.push("bad") + longer.push("ge") + longer.flush() == "badge"


def test_a_block_shows_what_came_before_and_nothing_after() -> None:
    stream = WordStream(WordList(["敏感词"]), "block")
    assert stream.push("这是敏") == "这是"
    assert stream.push("感词吗") == ""
    assert stream.blocked
    assert stream.push("more") == "" and stream.flush() == ""


def test_lists_with_nothing_in_them_match_nothing() -> None:
    words = WordList(["", "\u200b"])
    assert len(words) == 0
    assert words.find("anything") is None


def test_ten_thousand_words_are_all_found() -> None:
    rng = random.Random(3)
    han = [chr(rng.randrange(0x4E00, 0x9FA5)) for _ in range(2000)]
    listed = sorted({"".join(rng.choices(han, k=rng.randint(2, 6))) for _ in range(10_500)})[:10_000]
    words = WordList(listed)
    assert len(words) == 10_000
    assert all(words.find(f"说{word}吧") for word in listed[::97])
    assert words.find("the quick brown fox") is None


def test_what_is_held_and_hidden_is_told() -> None:
    stream = WordStream(WordList(["敏感", "bad"]))
    assert (stream.push("so b"), stream.holding, stream.num_hidden) == ("so ", True, 0)
    assert (stream.push("ad."), stream.holding, stream.num_hidden) == ("***.", False, 1)
    assert stream.allows("fine") and not stream.allows("very bad")
