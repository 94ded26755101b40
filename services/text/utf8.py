"""Decoding tokens that are byte strings: a character may lie across tokens, so incomplete ones are held back.

Rules: pure; knows byte pieces by id, no tokenizer library. Invalid bytes become U+FFFD per maximal subpart
(Unicode 3.9, as Rust's `from_utf8_lossy` and Python's "replace" do), so the result does not depend on how it
is cut.
"""

from __future__ import annotations

from codecs import utf_8_decode
from collections.abc import Collection, Sequence

from .json_pieces import JsonPieces


class PieceTable:
    """All tokens of a vocabulary: `pieces[id]` are the bytes, `texts[id]` their text, None when a piece alone
    is not valid UTF-8. Takes about 150 bytes a token and is shared by all streams."""

    def __init__(self, pieces: Sequence[bytes], *, strip_first_space: bool = False) -> None:
        self.pieces = list(pieces)
        self.texts = [_text_or_none(piece) for piece in self.pieces]
        self.strip_first_space = strip_first_space
        self.json = JsonPieces(self.text_of)

    def without(self, ids: Collection[int]) -> PieceTable:
        """The same, but that these tokens have no text."""
        if not ids:
            return self
        made = PieceTable((), strip_first_space=self.strip_first_space)
        made.pieces, made.texts = self.pieces.copy(), self.texts.copy()
        for token_id in ids:
            made.pieces[token_id], made.texts[token_id] = b"", ""
        return made

    def text_of(self, token_id: int) -> str | None:
        """A token's own text; None for a part of a character and for what is not in the vocabulary."""
        return self.texts[token_id] if 0 <= token_id < len(self.texts) else None


def _text_or_none(piece: bytes) -> str | None:
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return None


class PieceDecoder:
    """IncrementalDecoder over a PieceTable: one list look-up for a token that is whole characters (60 ns)."""

    __slots__ = ("_at_start", "_pending", "_table", "_texts")

    def __init__(self, table: PieceTable) -> None:
        self._table = table
        self._texts = table.texts
        self._pending = b""
        self._at_start = table.strip_first_space

    def push(self, token_id: int) -> str:
        try:
            text = self._texts[token_id]
        except IndexError:  # models pad their vocabulary; a padding id has no text
            return ""
        if text is None or self._pending:
            data = self._pending + self._table.pieces[token_id]
            text, used = utf_8_decode(data, "replace", False)
            self._pending = data[used:]
        if self._at_start and text:
            self._at_start = False
            if text[0] == " ":  # SentencePiece writes a word as space + word, also the first
                return text[1:]
        return text

    def json_pieces(self) -> JsonPieces | None:
        return None if self._pending or self._at_start else self._table.json

    def flush(self) -> str:
        pending, self._pending = self._pending, b""
        return pending.decode("utf-8", "replace")
