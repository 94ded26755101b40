"""Tokens as they stand in JSON: one look-up from a token id to bytes that can be sent.

Rules: pure; one table per vocabulary, shared by all its streams, filled as tokens come. Only tokens that are whole
characters wherever they stand are in it: what depends on the tokens before is the decoder's business.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

_dumps = msgspec.json.Encoder().encode
MAX_PIECES = 262_144
"""Of the largest vocabularies, all: 50 MB once every token was said."""


class JsonPieces(dict[int, bytes]):
    """`pieces[token_id]` is the token's text as a JSON string, quotes included. KeyError for a token that has no text,
    or none of its own (a part of a character). At most `most` are kept (None: MAX_PIECES)."""

    def __init__(self, text_of: Callable[[int], str | None], most: int | None = None) -> None:
        super().__init__()
        self._text_of, self._most = text_of, MAX_PIECES if most is None else most

    def __missing__(self, token_id: int) -> bytes:
        text = self._text_of(token_id)
        if not text:
            raise KeyError(token_id)
        piece = _dumps(text)
        if len(self) < self._most:
            self[token_id] = piece
        return piece
