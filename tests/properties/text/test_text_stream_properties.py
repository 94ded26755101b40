"""Streams of text, cut in any way.

1. StopMatcher: shown text and verdict are those of a reader of single characters, for every cut.
2. StopMatcher: what is held back is shorter than the longest stop string.
3. ToolCallStream: shown text and calls do not depend on the cut.
4. ToolCallStream: text without tags comes out as it went in.
5. Decoders: concatenated pieces equal the decoding of all bytes at once.
6. Decoders: nothing but complete characters comes out before the end.
"""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from services.answer import ToolCallDelta
from services.sim_tokenizer import END_ID, encode, piece
from services.text.sim_text import SimTokenizer
from services.text.stops import StopMatcher
from services.text.tokenizer import decode_all
from services.text.tool_formats import DEEPSEEK, HERMES, MARKS, MISTRAL
from services.text.tools import ToolCallStream
from services.text.utf8 import PieceDecoder, PieceTable

ABC = st.text(alphabet="abc\n", max_size=40)
STOPS = st.lists(st.text(alphabet="abc\n", min_size=1, max_size=5), min_size=1, max_size=4).map(tuple)
CUTS = st.lists(st.integers(0, 40), max_size=12)


def cut(text: str, cuts: list[int]) -> list[str]:
    marks = [0, *sorted(min(mark, len(text)) for mark in cuts), len(text)]
    return [text[a:b] for a, b in pairwise(marks)]


def read_by_character(text: str, stops: tuple[str, ...]) -> tuple[str, str | None]:
    """The reference: stop at the first character where some stop string ends, the longest of those."""
    for end in range(1, len(text) + 1):
        endings = [stop for stop in stops if text[:end].endswith(stop)]
        if endings:
            longest = max(endings, key=len)
            return text[: end - len(longest)], longest
    return text, None


@settings(max_examples=60)
@given(ABC, STOPS, CUTS)
def test_1_the_verdict_does_not_depend_on_the_cut(text: str, stops: tuple[str, ...], cuts: list[int]) -> None:
    matcher = StopMatcher(stops)
    shown = "".join(map(matcher.push, cut(text, cuts)))
    assert (shown + matcher.flush(), matcher.matched) == read_by_character(text, stops)


@settings(max_examples=60)
@given(ABC, STOPS, CUTS)
def test_2_hold_back_is_bounded(text: str, stops: tuple[str, ...], cuts: list[int]) -> None:
    matcher, pushed, shown = StopMatcher(stops), 0, 0
    for part in cut(text, cuts):
        pushed += len(part)
        shown += len(matcher.push(part))
        assert matcher.matched is not None or pushed - shown < max(map(len, stops))


BLOCKS = st.lists(
    st.sampled_from([
        HERMES.open, HERMES.close, "<tool_", "</", "hello ", "<b>", "\n", " ", '{"name":"f","arguments":{"x":"</"}}',
        '{"name":"g"}', "[", "]", ",", "x", *sorted(MARKS), DEEPSEEK.open, DEEPSEEK.close, MISTRAL.open, "<｜tool",
        f'{DEEPSEEK.open}<｜tool▁call▁begin｜>g<｜tool▁sep｜>{{"y": 1}}<｜tool▁call▁end｜>', "[TOOL",
    ]),
    max_size=14,
).map("".join)  # fmt: skip


def run_tools(parts: list[str]) -> tuple[str, list[ToolCallDelta]]:
    stream = ToolCallStream(lambda index: f"call_{index}")
    seen = [stream.push(part) for part in parts] + [stream.flush()]
    calls = [call for _, some in seen for call in some]
    assert stream.num_calls == len(calls)
    return "".join(text for text, _ in seen), calls


@settings(max_examples=60)
@given(BLOCKS, st.lists(st.integers(0, 200), max_size=20))
def test_3_calls_do_not_depend_on_the_cut(text: str, cuts: list[int]) -> None:
    assert run_tools(cut(text, cuts)) == run_tools([text])


@settings(max_examples=60)
@given(st.text(alphabet="<tol_ca>/x\n ", max_size=40), CUTS)
def test_4_plain_text_is_untouched(text: str, cuts: list[int]) -> None:
    text = text.replace(HERMES.open, "")
    assert run_tools(cut(text, cuts)) == (text, [])


PIECES = st.lists(st.binary(max_size=4), min_size=1, max_size=20)


@settings(max_examples=60)
@given(PIECES, st.lists(st.integers(0, 24), max_size=30))
def test_5_pieces_decode_as_their_concatenation(pieces: list[bytes], ids: list[int]) -> None:
    whole = b"".join(pieces[i] for i in ids if i < len(pieces))
    assert decode_all(PieceDecoder(PieceTable(pieces)), ids) == whole.decode("utf-8", "replace")


@settings(max_examples=60)
@given(st.lists(st.integers(0, (1 << 32) - 1), max_size=20))
def test_5_any_simulated_ids_decode_as_their_bytes(ids: list[int]) -> None:
    whole = b"".join(map(piece, ids))
    assert decode_all(SimTokenizer().decoder(), ids) == whole.decode("utf-8", "replace")


@settings(max_examples=60)
@given(st.text(max_size=30))
def test_6_valid_text_comes_out_in_whole_characters(text: str) -> None:
    text = text.replace("\0", "")
    decoder, packed = SimTokenizer().decoder(), encode(text)
    ids = [int.from_bytes(packed[at : at + 4], "little") for at in range(0, len(packed), 4)]
    parts = [decoder.push(token_id) for token_id in [*ids, END_ID]]
    assert "\ufffd" in text or not any("\ufffd" in part for part in parts)
    assert "".join(parts).rstrip(" ") == text.rstrip(" ")
    assert decoder.flush() == ""
