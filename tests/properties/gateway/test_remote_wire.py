"""A remote server's bytes: the pieces are the same however it is cut, and noise is a RemoteFault at worst."""

from __future__ import annotations

import contextlib
import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.remote_wire import MAX_LINE_BYTES, EventReader, Piece, RemoteFault


def _event(text: str, finish: str | None) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\r\n\r\n"


def _read(parts: list[bytes]) -> tuple[list[Piece], str]:
    reader, pieces = EventReader(), list[Piece]()
    try:
        for part in parts:
            for piece in reader.feed(part):
                pieces.append(piece)
    except RemoteFault as fault:
        return pieces, fault.kind
    return pieces, "done" if reader.done else ""


def _cut(data: bytes, cuts: list[int]) -> list[bytes]:
    at = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(at)]


LINES = st.one_of(
    st.builds(_event, st.text(st.characters(exclude_categories=("Cs",)), max_size=20), st.none()),
    st.sampled_from((b": comment\n", b"event: x\n", b"data: [DONE]\n\n", b"data: {}\n\n", b"data: {\n", b"<p>\n",
                     b'data: {"error": 1}\n', _event("end", "stop"), _event("", "length"), _event("x", "odd"))),
)  # fmt: skip


@given(st.lists(LINES, max_size=8), st.lists(st.integers(0, 10_000), max_size=12))
def test_the_cut_does_not_matter(lines: list[bytes], cuts: list[int]) -> None:
    data = b"".join(lines)
    assert _read(_cut(data, cuts)) == _read([data])


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=6))
def test_noise_is_a_fault_and_nothing_else(noise: bytes, cuts: list[int]) -> None:
    reader = EventReader()
    with contextlib.suppress(RemoteFault):
        for part in _cut(b"data: " + noise + b"\n" + noise + b"\n", cuts):
            list(reader.feed(part))


def test_what_is_held_is_bounded() -> None:
    reader, whole = EventReader(), MAX_LINE_BYTES // 1024
    for _ in range(whole):
        assert list(reader.feed(b"x" * 1024)) == []
    with pytest.raises(RemoteFault, match="too_long"):
        list(reader.feed(b"x"))
