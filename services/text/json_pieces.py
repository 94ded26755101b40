"""Tokens as they stand in JSON: one look-up from a token id to bytes that can be sent.

Rules: pure; one table per vocabulary, shared by all its streams, filled as tokens come. Only tokens that are whole
characters wherever they stand are in it: what depends on the tokens before is the decoder's business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

_dumps = msgspec.json.Encoder().encode
MAX_PIECES = 262_144
"""Of the largest vocabularies, all. The simulated model's has 2^32."""
MAX_ENDINGS = 8
MAX_WITH_ENDING = 65_536
"""Of each ending, so many of the tokens that come first, which are the frequent ones: about 8 MB."""


class JsonPieces(dict[int, bytes]):
    """`pieces[token_id]` is the token's text as a JSON string, quotes included. KeyError for a token that has no text,
    or none of its own (a part of a character). At most `most` are kept."""

    def __init__(self, text_of: Callable[[int], str | None], most: int | None = None) -> None:
        super().__init__()
        self._text_of, self._most = text_of, MAX_PIECES if most is None else most
        self._with_ending: dict[bytes, _WithEnding] = {}

    def __missing__(self, token_id: int) -> bytes:
        text = self._text_of(token_id)
        if not text:
            raise KeyError(token_id)
        piece = _dumps(text)
        if len(self) < self._most:
            self[token_id] = piece
        return piece

    def ending_in(self, ending: bytes) -> Mapping[int, bytes]:
        """The same, each piece with these bytes behind it: what ends a stream's events is the same in all streams of
        its kind."""
        known = self._with_ending.get(ending)
        if known is None:
            known = _WithEnding(self, ending, min(self._most, MAX_WITH_ENDING))
            if len(self._with_ending) < MAX_ENDINGS:
                self._with_ending[ending] = known
        return known


class _WithEnding(dict[int, bytes]):
    def __init__(self, pieces: JsonPieces, ending: bytes, most: int) -> None:
        super().__init__()
        self._pieces, self._ending, self._most = pieces, ending, most

    def __missing__(self, token_id: int) -> bytes:
        piece = self._pieces[token_id] + self._ending
        if len(self) < self._most:
            self[token_id] = piece
        return piece
