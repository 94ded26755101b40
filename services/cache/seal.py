"""Authenticated encryption of stored values, under keys that can be destroyed. Pure apart from the nonce.

Rules: bytes in, bytes out; knows no store. AES-256-GCM; the key of an entry is

    MAC(sealing root, secrets of its scopes ‖ wire key)

so an entry opens only with the mesh's root *and* with every scope's secret, and only under the key that it
was stored for. Whoever can write to Redis can neither forge nor swap entries (no root there); whoever
destroys a scope's secret has destroyed every answer under it, wherever its bytes still lie
(crypto-shredding).

    1 version · 1 length of person tag · person tag · 4 check of the secrets · 12 nonce · ciphertext and tag

The version, the person tag and the check are bound as associated data. The check only tells "purged" from
"poisoned" in the statistics.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from enum import Enum

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

VERSION = 1
CHECK_BYTES, NONCE_BYTES, GCM_TAG_BYTES = 4, 12, 16


class Broken(Enum):
    """Why a sealed value does not open."""

    PURGED = "purged"
    POISONED = "poisoned"


def person_of(sealed: bytes) -> bytes | None:
    """The tag of whoever the value was made for; None when these bytes are no sealed value."""
    if len(sealed) < 2 or sealed[0] != VERSION or len(sealed) < 2 + sealed[1]:
        return None
    return sealed[2 : 2 + sealed[1]]


def seal(root: bytes, secrets: Sequence[bytes], wire: bytes, person: bytes, value: bytes) -> bytes:
    """Encrypt `value` for `wire`. `secrets` are of one fixed length, in the order of CacheKey.scopes."""
    key = _key(root, secrets, wire)
    head = bytes((VERSION, len(person))) + person + _check(key)
    nonce = os.urandom(NONCE_BYTES)
    return head + nonce + AESGCM(key).encrypt(nonce, value, head)


def unseal(root: bytes, secrets: Sequence[bytes], wire: bytes, sealed: bytes) -> bytes | Broken:
    """The value, or why there is none."""
    person = person_of(sealed)
    if person is None:
        return Broken.POISONED
    head_bytes = 2 + len(person) + CHECK_BYTES
    if len(sealed) < head_bytes + NONCE_BYTES + GCM_TAG_BYTES:
        return Broken.POISONED
    key = _key(root, secrets, wire)
    head = sealed[:head_bytes]
    if head[2 + len(person) :] != _check(key):
        return Broken.PURGED
    body = head_bytes + NONCE_BYTES
    try:
        return AESGCM(key).decrypt(sealed[head_bytes:body], sealed[body:], head)
    except InvalidTag:
        return Broken.POISONED


def _key(root: bytes, secrets: Sequence[bytes], wire: bytes) -> bytes:
    return blake3(b"".join(secrets) + wire, key=root).digest()


def _check(key: bytes) -> bytes:
    return blake3(b"check", key=key).digest(CHECK_BYTES)
