"""1. What was sealed opens, whatever its length. 2. After any single change of a byte, a length, an order, a name or
a key it does not. 3. Its length is known beforehand."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.experts import chunk_seal

CHUNK = 16
KEY = bytes(range(32))
PLAIN = st.binary(max_size=5 * CHUNK)
HEAD = len(chunk_seal.MAGIC) + chunk_seal.SALT_BYTES
SEALED_CHUNK = CHUNK + chunk_seal.TAG_BYTES


def sealed(plain: bytes, name: str = "a", key: bytes = KEY) -> bytes:
    return b"".join(chunk_seal.seal(chunk_seal.chunks(io.BytesIO(plain), CHUNK), key, name, CHUNK))


def opened(text: bytes, name: str = "a", key: bytes = KEY) -> bytes:
    return b"".join(chunk_seal.unseal(io.BytesIO(text), key, name, CHUNK))


@given(PLAIN)
def test_it_opens_and_has_the_length_that_was_said(plain: bytes) -> None:
    text = sealed(plain)
    assert opened(text) == plain
    assert len(text) == chunk_seal.sealed_bytes(len(plain), CHUNK)
    assert len(plain) < 8 or plain not in text


@given(PLAIN, st.data())
def test_a_changed_bit_is_found_wherever_it_is(plain: bytes, data: st.DataObject) -> None:
    text = bytearray(sealed(plain))
    text[data.draw(st.integers(0, len(text) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(chunk_seal.Unsealable):
        opened(bytes(text))


@given(PLAIN, st.data())
def test_every_other_length_is_found(plain: bytes, data: st.DataObject) -> None:
    text = sealed(plain)
    with pytest.raises(chunk_seal.Unsealable):
        opened(text[: data.draw(st.integers(0, len(text) - 1))])
    with pytest.raises(chunk_seal.Unsealable):
        opened(text + data.draw(st.binary(min_size=1, max_size=3 * SEALED_CHUNK)))


@pytest.mark.parametrize("num_chunks", range(1, 5))
def test_a_cut_between_two_chunks_is_found(num_chunks: int) -> None:
    text = sealed(bytes(5 * CHUNK))
    with pytest.raises(chunk_seal.Unsealable):
        opened(text[: HEAD + num_chunks * SEALED_CHUNK])


@given(st.permutations(range(5)).filter(lambda order: order != [0, 1, 2, 3, 4]))
def test_chunks_in_another_order_are_found_though_they_hold_the_same(order: list[int]) -> None:
    text = sealed(bytes(5 * CHUNK))
    parts = [text[at : at + SEALED_CHUNK] for at in range(HEAD, len(text), SEALED_CHUNK)]
    with pytest.raises(chunk_seal.Unsealable):
        opened(text[:HEAD] + b"".join(parts[one] for one in order))


@pytest.mark.parametrize("which", range(5))
def test_a_repeated_or_missing_chunk_is_found(which: int) -> None:
    text = sealed(bytes(5 * CHUNK))
    begin = HEAD + which * SEALED_CHUNK
    end = begin + SEALED_CHUNK
    for changed in (text[:end] + text[begin:], text[:begin] + text[end:]):
        with pytest.raises(chunk_seal.Unsealable):
            opened(changed)


@given(PLAIN)
def test_another_name_and_another_key_do_not_open_it(plain: bytes) -> None:
    text = sealed(plain)
    with pytest.raises(chunk_seal.Unsealable):
        opened(text, name="b")
    with pytest.raises(chunk_seal.Unsealable):
        opened(text, key=bytes(32))


@given(PLAIN)
def test_the_same_bytes_are_never_sealed_twice_alike(plain: bytes) -> None:
    first, second = sealed(plain), sealed(plain)
    assert first[:HEAD] != second[:HEAD]
    assert first[HEAD:] != second[HEAD:]
    with pytest.raises(chunk_seal.Unsealable):
        opened(first[:HEAD] + second[HEAD:])
