"""Frames survive any cut of the byte stream; garbage ends the link."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.errors import LinkClosed
from services.link.frames import FrameReader, decode_payload, encode_frame
from services.link.messages import Abort, Grant, Ping, Submit
from services.request import GenerateJob, SamplingParams, TokenFrame, TokenLogprob, pack_ids

MESSAGES = [
    TokenFrame(
        7, (1, 2), finish="stop", logprobs=(TokenLogprob(-0.5, ((3, -1.0),)),), cached_tokens=4, index=9
    ),
    Submit(3, 1, GenerateJob("r", pack_ids([5, 6]), SamplingParams(max_tokens=3, stop=("a",)))),
    Abort(3),
    Grant(1, 2, "e", "127.0.0.1:1", 3, 0.25, b"key"),
    Ping(),
]


@given(st.lists(st.integers(1, 60), min_size=1, max_size=40))
def test_any_cut_gives_the_same_messages(cuts: list[int]) -> None:
    data = encode_frame(MESSAGES[:2]) + encode_frame(MESSAGES[2:])
    reader, out, at = FrameReader(), [], 0
    for cut in [*cuts, len(data)]:
        for payload in reader.feed(data[at : at + cut]):
            out.extend(decode_payload(payload))
        at += cut
    assert out == MESSAGES


def test_oversize_frames_are_refused_before_they_are_read() -> None:
    with pytest.raises(LinkClosed, match="limit"):
        FrameReader(max_frame_bytes=10).feed(b"\xff\xff\x00\x00")


@given(st.binary(max_size=200))
def test_garbage_is_refused_and_nothing_else(payload: bytes) -> None:
    try:
        decode_payload(payload)
    except LinkClosed:
        return
