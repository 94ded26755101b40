"""One stream of bytes sealed with AES-256-GCM, chunk by chunk. Pure apart from the salt.

Rules: streams in, chunks out; knows no folder and no key file. The construction is STREAM (Hoang, Reyhanitabar,
Rogaway, Vizár, CRYPTO 2015), as age and Tink use it:

    8 magic · 32 salt · chunks of CHUNK_BYTES (the last may be shorter or empty), each with a tag of 16 bytes

The key of a stream is HKDF-SHA256(data key, salt, name), so a stream opens under its own name only, and no two streams
share a key. A nonce is 11 bytes of counter and one byte that says whether the chunk is the last: a chunk that is
changed, moved, repeated, left out, cut off or put behind the end does not open.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

MAGIC = b"EMSEAL\x00\x01"
KEY_BYTES, SALT_BYTES, TAG_BYTES = 32, 32, 16
CHUNK_BYTES = 1 << 20
"""Plain bytes of a chunk. Part of the format: another size is another MAGIC."""


class Unsealable(Exception):
    """These bytes were not sealed under this key and name, or were changed since. The message says where."""


def derive(key: bytes, salt: bytes, purpose: bytes) -> bytes:
    """32 bytes for one purpose out of a uniformly random key (HKDF, RFC 5869)."""
    return HKDF(SHA256(), KEY_BYTES, salt, b"expertmesh model " + purpose).derive(key)


def sealed_bytes(plain_bytes: int, chunk_bytes: int = CHUNK_BYTES) -> int:
    """The length of a sealed stream of `plain_bytes`."""
    num_chunks = max(1, -(-plain_bytes // chunk_bytes))
    return len(MAGIC) + SALT_BYTES + plain_bytes + num_chunks * TAG_BYTES


def seal(source: Iterator[bytes], key: bytes, name: str, chunk_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
    """What to write, in order. Each item of `source` but the last has exactly `chunk_bytes`; none stands for one
    empty chunk. `key`: 32 random bytes."""
    salt = os.urandom(SALT_BYTES)
    cipher = _cipher(key, salt, name)
    yield MAGIC + salt
    held, counter = next(source, b""), 0
    for chunk in source:
        assert len(held) == chunk_bytes
        yield cipher.encrypt(_nonce(counter, last=False), held, None)
        held, counter = chunk, counter + 1
    assert len(held) <= chunk_bytes
    yield cipher.encrypt(_nonce(counter, last=True), held, None)


def unseal(sealed: BinaryIO, key: bytes, name: str, chunk_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
    """The plain chunks, each authentic when it is given; that they are all is known when the iteration ends. Raises
    Unsealable, OSError."""
    head = sealed.read(len(MAGIC) + SALT_BYTES)
    if len(head) < len(MAGIC) + SALT_BYTES or not head.startswith(MAGIC):
        raise Unsealable("it does not begin as a sealed file does")
    cipher = _cipher(key, head[len(MAGIC) :], name)
    held, counter = sealed.read(chunk_bytes + TAG_BYTES), 0
    while True:
        following = sealed.read(chunk_bytes + TAG_BYTES)
        try:
            yield cipher.decrypt(_nonce(counter, last=not following), held, None)
        except (InvalidTag, ValueError):  # ValueError: shorter than a tag
            raise Unsealable(f"chunk {counter} was changed, moved, cut off or is another file's") from None
        if not following:
            return
        held, counter = following, counter + 1


def chunks(source: BinaryIO, chunk_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
    """A file's bytes as `seal` wants them. `source` is buffered: a read gives all it is asked for, but at the end."""
    while chunk := source.read(chunk_bytes):
        yield chunk


def _cipher(key: bytes, salt: bytes, name: str) -> AESGCM:
    return AESGCM(derive(key, salt, b"file\x00" + name.encode()))


def _nonce(counter: int, last: bool) -> bytes:
    return counter.to_bytes(11, "big") + (b"\x01" if last else b"\x00")
