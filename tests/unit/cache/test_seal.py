"""Sealed values open only under their key, their secrets and their root."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.cache.seal import Broken, person_of, seal, unseal

ROOT = bytes(32)
WIRE = b"w" * 48
SECRETS = (b"t" * 17, b"m" * 17, b"p" * 17)
people = st.sampled_from([b"", b"12345678"])


@given(st.binary(max_size=100), people)
def test_it_opens(value: bytes, person: bytes) -> None:
    sealed = seal(ROOT, SECRETS, WIRE, person, value)
    assert unseal(ROOT, SECRETS, WIRE, sealed) == value
    assert person_of(sealed) == person
    assert seal(ROOT, SECRETS, WIRE, person, value) != sealed


@given(st.binary(max_size=30), people, st.integers(0, 200), st.integers(1, 255))
def test_no_byte_can_change(value: bytes, person: bytes, at: int, flip: int) -> None:
    sealed = bytearray(seal(ROOT, SECRETS, WIRE, person, value))
    sealed[at % len(sealed)] ^= flip
    assert isinstance(unseal(ROOT, SECRETS, WIRE, bytes(sealed)), Broken)


@given(st.binary(max_size=30), people, st.data())
def test_no_byte_can_be_missing_or_added(value: bytes, person: bytes, data: st.DataObject) -> None:
    sealed = seal(ROOT, SECRETS, WIRE, person, value)
    cut = data.draw(st.integers(0, len(sealed) - 1))
    assert isinstance(unseal(ROOT, SECRETS, WIRE, sealed[:cut]), Broken)
    assert isinstance(unseal(ROOT, SECRETS, WIRE, sealed + b"x"), Broken)


@given(st.binary(max_size=60))
def test_garbage_does_not_open(garbage: bytes) -> None:
    assert isinstance(unseal(ROOT, SECRETS, WIRE, garbage), Broken)


def test_another_key_secret_or_root_does_not_open() -> None:
    sealed = seal(ROOT, SECRETS, WIRE, b"", b"value")
    assert unseal(ROOT, SECRETS, b"v" * 48, sealed) is Broken.PURGED
    assert unseal(bytes(31) + b"\1", SECRETS, WIRE, sealed) is Broken.PURGED
    assert unseal(ROOT, (b"T" * 17, *SECRETS[1:]), WIRE, sealed) is Broken.PURGED
    assert unseal(ROOT, SECRETS, WIRE, sealed[:-1] + b"\0\0") is Broken.POISONED
