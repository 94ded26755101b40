"""The simulated model's tokenizer: four bytes of UTF-8 are one token, so text bytes *are* packed token ids.

Rules: pure; knows nothing but bytes. A token id is its four bytes read as little-endian uint32, which makes every
id valid, encoding a copy and decoding O(1). The end token `END_ID` has no text, as with a real model. A character
may lie across two tokens, as with a real model too: whoever shows text decodes incrementally.
"""

from __future__ import annotations

PIECE_BYTES = 4
VOCAB_SIZE = 1 << 32
END_ID = 0
"""Ends an answer; four NUL bytes, shown as nothing."""

_END_PIECE = bytes(PIECE_BYTES)
_PAD = b" "


def encode(text: str) -> bytes:
    """Packed token ids of `text` (services/request.py), padded with spaces to whole tokens.

    Raises UnicodeEncodeError for lone surrogates."""
    return pad(text.encode())


def pad(data: bytes) -> bytes:
    """`data` with spaces up to a multiple of four bytes."""
    missing = -len(data) % PIECE_BYTES
    return data + _PAD * missing if missing else data


def piece(token_id: int) -> bytes:
    """The bytes that a token stands for; empty for the end token. May be a part of a character."""
    return token_id.to_bytes(PIECE_BYTES, "little") if token_id else b""


def decode(packed: bytes) -> bytes:
    """The bytes that packed ids stand for, end tokens left out."""
    if _END_PIECE not in packed:
        return packed
    pieces = (packed[at : at + PIECE_BYTES] for at in range(0, len(packed), PIECE_BYTES))
    return b"".join(one for one in pieces if one != _END_PIECE)
