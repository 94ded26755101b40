"""The chain: how a record becomes a line, and what a line proves. Pure.

Rules: bytes in, bytes out; no files, no clock. A line is one JSON object,

    {"seq":7,<the record's own fields>,"prev":"<hash of line 6>","hash":"<SHA-256 of this line up to here>"}

with `"sig"` behind the hash of a checkpoint. Each record carries the hash of the one before, so a change, a removal, an
insertion or another order anywhere breaks every later line unless all of them are made anew; the signatures keep
whoever has not got the keys from that. Signing keys are forward secure, as systemd's journal sealing: the seed of key
i + 1 is a hash of the seed of key i, which is then destroyed, so that who takes the host today cannot sign for
yesterday. Unlike there the signatures are public (Ed25519): an auditor needs no secret to verify.
"""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple, Protocol

GENESIS = "0" * 64
"""`prev` of a chain's first record."""
_DOMAIN = b"expertmesh audit checkpoint v1\0"
_LINE = re.compile(
    rb'(\{"seq":([1-9][0-9]{0,18}),(.*),"prev":"([0-9a-f]{64})"),"hash":"([0-9a-f]{64})"'
    rb'(?:,"sig":"([0-9a-f]{128})")?\}',
    re.DOTALL,
)


class Keys(Protocol):
    """Ed25519 (ed25519_keys.py)."""

    def public(self, seed: bytes) -> bytes:
        """The public key, 32 bytes, of a seed of 32 bytes."""
        ...

    def sign(self, seed: bytes, message: bytes) -> bytes:
        """64 bytes."""
        ...

    def verify(self, public: bytes, signature: bytes, message: bytes) -> bool:
        """Never raises."""
        ...


class Head(NamedTuple):
    """The last record of a chain so far."""

    seq: int = 0
    hash: str = GENESIS


class Line(NamedTuple):
    """A line taken apart. `body` is the record's JSON object; `fits`: the hash is of what stands before it."""

    seq: int
    body: bytes
    prev: str
    hash: str
    sig: str
    fits: bool


def link(head: Head, body: bytes) -> tuple[bytes, Head]:
    """The next line, with its newline. `body` is a JSON object that is not empty."""
    seq = head.seq + 1
    prefix = b'{"seq":%d,%b,"prev":"%b"' % (seq, body[1:-1], head.hash.encode())
    digest = hashlib.sha256(prefix).hexdigest()
    return prefix + b',"hash":"' + digest.encode() + b'"}\n', Head(seq, digest)


def link_signed(head: Head, body: bytes, seed: bytes, keys: Keys) -> tuple[bytes, Head]:
    """As `link`, signed with the key of `seed`."""
    line, after = link(head, body)
    signature = keys.sign(seed, signed_message(after.hash))
    return line[:-2] + b',"sig":"' + signature.hex().encode() + b'"}\n', after


def signed_message(digest: str) -> bytes:
    """What the signature of a record with that hash is made of."""
    return _DOMAIN + bytes.fromhex(digest)


def next_seed(seed: bytes) -> bytes:
    """One way: nobody gets from the result to `seed`."""
    return hashlib.sha256(b"expertmesh audit next key v1\0" + seed).digest()


def parse(line: bytes) -> Line | None:
    """A line without its newline; None for what this module never wrote."""
    found = _LINE.fullmatch(line)
    if found is None:
        return None
    prefix, seq, inner, prev, digest, sig = found.groups()
    return Line(
        int(seq),
        b"{" + inner + b"}",
        prev.decode(),
        digest.decode(),
        (sig or b"").decode(),
        hashlib.sha256(prefix).hexdigest().encode() == digest,
    )
