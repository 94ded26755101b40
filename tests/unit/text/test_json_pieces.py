"""Tokens as JSON. A piece is what the decoder says of the token, wherever it stands; what is none has no piece."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping

import pytest

from services.experts import sim_answers
from services.request import unpack_ids
from services.sim_tokenizer import END_ID, encode
from services.text import json_pieces, sim_text
from services.text.json_pieces import JsonPieces
from services.text.sim_text import SimTokenizer
from services.text.utf8 import PieceDecoder, PieceTable

TABLE = [b"", b" a", b'"\\\n', b"\xe5\x8a", b"\xa8", "动".encode(), b"<"]


def test_pieces_say_what_the_decoder_says() -> None:
    for tokenizer_ids, decoder in (
        (unpack_ids(encode('ab"c\\\x01de{"x": "动动x"} ')), SimTokenizer().decoder()),
        ([1, 2, 5, 3, 4, 1, 6, 0, 99], PieceDecoder(PieceTable(TABLE))),
    ):
        shown, plain = "", 0
        for token_id in tokenizer_ids:
            pieces = decoder.json_pieces()
            text = decoder.push(token_id)
            if pieces is not None and token_id in (known := _known(pieces, token_id)):
                assert json.loads(known[token_id]) == text
                plain += 1
            shown += text
        assert plain >= 4 and "\ufffd" not in shown


def _known(pieces: JsonPieces, token_id: int) -> dict[int, bytes]:
    try:
        return {token_id: pieces[token_id]}
    except KeyError:
        return {}


def test_parts_of_characters_ends_and_strangers_have_no_piece() -> None:
    table = PieceTable(TABLE)
    for token_id in (0, 3, 4, 99, -1):
        with pytest.raises(KeyError):
            _ = table.json[token_id]
    with pytest.raises(KeyError):
        _ = _sim()[END_ID]


def _sim() -> JsonPieces:
    pieces = SimTokenizer().decoder().json_pieces()
    assert pieces is not None
    return pieces


def test_no_pieces_while_something_is_held_back_or_the_first_space_will_be_cut() -> None:
    decoder = PieceDecoder(PieceTable(TABLE))
    decoder.push(3)
    assert decoder.json_pieces() is None
    decoder.push(4)
    assert decoder.json_pieces() is not None
    starting = PieceDecoder(PieceTable(TABLE, strip_first_space=True))
    assert starting.json_pieces() is None
    starting.push(1)
    assert starting.json_pieces() is not None


def test_the_table_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_pieces, "MAX_PIECES", 2)
    pieces = JsonPieces(lambda token_id: f"t{token_id}")
    assert [pieces[i] for i in range(5)] == [b'"t%d"' % i for i in range(5)]
    assert len(pieces) == 2


def test_of_the_simulated_model_only_so_many_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sim_text._JSON._most == sim_text._MAX_KNOWN < json_pieces.MAX_PIECES
    monkeypatch.setattr(sim_text, "_MAX_KNOWN", 4)
    monkeypatch.setattr(sim_text, "_KNOWN", {})
    decoder = SimTokenizer().decoder()
    ids = [int.from_bytes(b"%04d" % number, "little") for number in range(9)]
    assert [decoder.push(token_id) for token_id in ids * 2] == [f"{number:04d}" for number in range(9)] * 2
    assert len(sim_text._KNOWN) == 4


def test_what_the_simulated_model_says_in_all_its_answers_has_room() -> None:
    assert len({token_id for row in sim_answers._IDS for token_id in row}) < sim_text._MAX_KNOWN


def test_ever_new_tokens_fill_less_than_a_megabyte() -> None:
    """As answers to a schema say them, in both kinds of event. Kept to the end of the process, so it counts."""
    pieces = JsonPieces(sim_text._own_text, sim_text._MAX_KNOWN)
    tables = [pieces.ending_in(b"e" * 40), pieces.ending_in(b"e" * 41)]
    for number in range(10_000):
        for table in tables:
            _ = table[int.from_bytes(b"%04d" % number, "little")]
    assert sum(_size(table) for table in (pieces, *tables)) < 2**20


def _size(table: Mapping[int, bytes]) -> int:
    """Bytes of a table with what it holds, keys counted once per table."""
    return sys.getsizeof(table) + sum(sys.getsizeof(key) + sys.getsizeof(of) for key, of in table.items())


def test_pieces_with_what_stands_behind_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """One table for each ending, bounded in number and size; what is no piece is none with an ending either."""
    monkeypatch.setattr(json_pieces, "MAX_ENDINGS", 2)
    monkeypatch.setattr(json_pieces, "MAX_WITH_ENDING", 2)
    pieces = JsonPieces(lambda token_id: f"t{token_id}" if token_id else None)
    tables = {ending: pieces.ending_in(ending) for ending in (b"]", b"}", b"more than are kept")}
    for ending, table in tables.items():
        assert [table[i] for i in (1, 2, 3, 1)] == [b'"t%d"' % i + ending for i in (1, 2, 3, 1)]
        assert len(table) == 2
        with pytest.raises(KeyError):
            table[0]
    assert pieces.ending_in(b"]") is tables[b"]"]
    assert len(pieces._with_ending) == 2
