"""First tokens of an engine's step go first (mux.py).

1. Everything is handed on once, each stream's in its order.
2. Answers that begin come before those that go on, and leave before anything is made of the others.
3. A step without both has nothing to sort, and nothing leaves early.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from services.gateway.mux import EngineMux, EnginePeer, first_tokens_first
from services.link.messages import AnyMessage, Grant, Ping, StreamFailed, Submit
from services.request import GenerateJob, SamplingParams, TokenFrame, pack_ids


def frame(stream_id: int, index: int) -> TokenFrame:
    return TokenFrame(stream_id, (7,), index=index)


def failed(stream_id: int) -> StreamFailed:
    return StreamFailed(stream_id, "engine_lost", "it went", retryable=True)


def stream_of(message: AnyMessage) -> int | None:
    return message.stream_id if isinstance(message, TokenFrame | StreamFailed) else None


@st.composite
def steps(draw: st.DrawFn) -> list[AnyMessage]:
    """What one read may bring: a few streams, each counting its tokens from somewhere, until it fails."""
    next_index = {stream: draw(st.integers(-1, 3)) for stream in range(5)}
    messages: list[AnyMessage] = []
    for stream, fails in draw(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9)), max_size=20)):
        if stream not in next_index:
            messages.append(Ping())
        elif fails == 0:
            messages.append(failed(stream))
            del next_index[stream]
        else:
            messages.append(frame(stream, next_index[stream]))
            next_index[stream] += next_index[stream] >= 0
    return messages


def by_stream(messages: Iterable[AnyMessage]) -> dict[int | None, list[int]]:
    found: dict[int | None, list[int]] = defaultdict(list)
    for message in messages:
        found[stream_of(message)].append(id(message))
    return found


@given(steps())
def test_each_stream_keeps_its_order_and_beginnings_come_first(messages: list[AnyMessage]) -> None:
    first, rest = first_tokens_first(messages)
    assert by_stream((*first, *rest)) == by_stream(messages)
    assert all(isinstance(each, TokenFrame) and each.index == 0 for each in first)
    assert not any(isinstance(each, TokenFrame) and each.index == 0 for each in rest)


class Told:
    """A receiver that notes, in a log shared by all, what it was handed."""

    def __init__(self, log: list[object]) -> None:
        self.log = log

    def on_frame(self, frame: TokenFrame, now_s: float) -> None:
        self.log.append((frame.stream_id, frame.index))

    def on_stream_failed(self, failed: StreamFailed) -> None:
        self.log.append((failed.stream_id, failed.reason))

    def on_lost(self, loss: object) -> None:
        self.log.append(loss)


class NoDial:
    def cancel(self) -> None: ...


def peer_with(num_streams: int) -> tuple[EnginePeer, list[object]]:
    log: list[object] = []
    mux = EngineMux("g", lambda _peer, _address, _key: NoDial())
    mux.on_first = lambda: log.append("leaves")
    peer = EnginePeer(mux, Grant(1, 1, "e", "a:1", 1, 0.0))
    job = GenerateJob("r", pack_ids([1]), SamplingParams(max_tokens=9))
    for stream_id in range(num_streams):
        peer.submit(Submit(stream_id, 1, job), Told(log))
    return peer, log


def hand(peer: EnginePeer, *messages: AnyMessage) -> None:
    link: Any = None
    peer.link_messages(link, messages)


def test_who_joined_last_is_told_first_and_at_once() -> None:
    peer, log = peer_with(4)
    hand(peer, frame(0, 5), frame(1, 6), failed(2), frame(3, 0))
    assert log == [(3, 0), "leaves", (0, 5), (1, 6), (2, "engine_lost")]


def test_a_token_behind_the_first_of_its_stream_stays_behind_it() -> None:
    peer, log = peer_with(2)
    hand(peer, frame(0, 3), frame(1, 0), frame(1, 1))
    assert log == [(1, 0), "leaves", (0, 3), (1, 1)]


def test_nothing_leaves_early_where_all_or_none_begin() -> None:
    peer, log = peer_with(2)
    hand(peer, frame(0, 0), frame(1, 0))
    hand(peer, frame(0, 1), frame(1, 1))
    hand(peer, frame(0, 2))
    assert log == [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2)]
