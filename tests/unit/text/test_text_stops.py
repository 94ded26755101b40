"""Stop strings: what is shown, what is held, which one wins."""

from __future__ import annotations

from services.text.stops import StopMatcher


def feed(matcher: StopMatcher, *texts: str) -> list[str]:
    return [matcher.push(text) for text in texts]


def test_text_without_a_beginning_passes_at_once() -> None:
    matcher = StopMatcher(("###",))
    assert feed(matcher, "Hello", " world") == ["Hello", " world"]
    assert matcher.matched is None


def test_a_match_inside_one_piece_cuts_there() -> None:
    matcher = StopMatcher(("STOP",))
    assert matcher.push("say STOP now") == "say "
    assert matcher.matched == "STOP"
    assert matcher.push("more") == ""
    assert matcher.flush() == ""


def test_a_match_over_three_pieces_is_found_and_never_shown() -> None:
    matcher = StopMatcher(("\nUser:",))
    assert feed(matcher, "Yes.\n", "Us", "er: next") == ["Yes.", "", ""]
    assert matcher.matched == "\nUser:"


def test_a_beginning_that_comes_to_nothing_is_shown_later() -> None:
    matcher = StopMatcher(("\nUser:",))
    assert feed(matcher, "a\n", "Us", "ual") == ["a", "", "\nUsual"]


def test_flush_shows_what_was_held() -> None:
    matcher = StopMatcher(("###",))
    assert matcher.push("end##") == "end"
    assert matcher.flush() == "##"


def test_the_one_that_ends_first_wins_however_long_another_is() -> None:
    matcher = StopMatcher(("abcd", "bc"))
    assert matcher.push("xabcd") == "xa"
    assert matcher.matched == "bc"


def test_of_two_that_end_together_the_longest_wins() -> None:
    matcher = StopMatcher(("c", "abc"))
    assert matcher.push("xabc") == "x"
    assert matcher.matched == "abc"


def test_overlapping_beginnings_keep_the_longest_tail() -> None:
    matcher = StopMatcher(("aab",))
    assert feed(matcher, "a", "a", "a", "b") == ["", "", "a", ""]
    assert matcher.matched == "aab"


def test_empty_and_double_stops_are_ignored() -> None:
    matcher = StopMatcher(("", "x", "x"))
    assert matcher.push("ab") == "ab"
    assert matcher.push("cx") == "c"
