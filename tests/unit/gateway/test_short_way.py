"""The short way of plain tokens (choice.py) is a short way and no other.

1. The client is sent each token once, in order.
2. Gaps between tokens are counted as if the observer had been told of each: per stream, though streams of one engine's
   step share what was worked out for the first of them; so are the longest and all of them together.
3. The queue hears of each token once.
"""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.answer import Delta
from services.clock import VirtualClock
from services.gateway.choice import Choice, Say
from services.gateway.flow import ChoiceFlow
from services.gateway.migrate import RetryBudget
from services.gateway.stream import TextStage
from services.link.messages import Acquire, Grant
from services.request import GenerateJob, SamplingParams, TokenFrame, pack_ids, unpack_ids
from services.sim_tokenizer import encode
from services.telemetry.names import ITL_BOUNDS_S
from services.telemetry.trace import RequestTrace
from services.text.json_pieces import JsonPieces
from services.text.sim_text import SimTokenizer

IDS = unpack_ids(encode("".join(f"w{number:02d} " for number in range(64))))


class Stream:
    """A choice, and all that it knows: the request, the queue, the engines."""

    want_logprobs = False
    numbers = count(1)

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.leases: Any = self
        self.engines: Any = self
        self.observer = RequestTrace(self.clock, "r", "http")
        self.token_text: Any = None
        self.said: list[str] = []
        self.told = 0
        job = GenerateJob("r", pack_ids([1]), SamplingParams(max_tokens=len(IDS)))
        flow = ChoiceFlow(
            job, Acquire(0, "r", "m", "t", "standard", 1, 9, 0.0, 0.0), arrived_s=0.0, deadline_s=1e9,
            next_id=self.numbers.__next__, budget=RetryBudget(),
        )  # fmt: skip
        owner: Any = self
        self.choice = Choice(owner, 0, flow, TextStage(SimTokenizer().decoder()))
        self.choice.apply(flow.start(0.0))
        self.choice.on_grant(Grant(flow.ticket, 1, "e", "a:1", 1, 0.0))

    def token(self, now_s: float) -> None:
        position = len(self.choice.flow.emitted)
        self.choice.on_frame(TokenFrame(1, (IDS[position],), index=position), now_s)

    def acquire(self, acquire: Acquire, holder: Choice) -> None: ...
    def open(self, *_: object) -> None: ...

    def progress(self, ticket: int, num_tokens: int) -> None:
        self.told += num_tokens

    def deltas(self, delta: Delta) -> None:
        self.said.append(delta.text)

    def plain(self, choice: int, pieces: JsonPieces) -> Say:
        return lambda token_id: self.said.append(pieces[token_id].decode().strip('"'))


@given(
    st.lists(
        st.tuples(st.sampled_from([0.0004, 0.02, 0.021, 0.3, 2.0]), st.sets(st.integers(0, 2), min_size=1)),
        min_size=1,
        max_size=len(IDS),
    )
)
def test_it_counts_as_the_long_way_does(steps: list[tuple[float, set[int]]]) -> None:
    """Steps of two engines or one, in which some of three streams get a token each."""
    streams, alone = (
        [Stream() for _ in range(3)],
        [RequestTrace(VirtualClock(), "r", "http") for _ in range(3)],
    )
    now_s = 1.0
    for gap_s, which in steps:
        now_s += gap_s
        for number in sorted(which):
            streams[number].token(now_s)
            alone[number].tokens(1, now_s)
    for stream, told in zip(streams, alone, strict=True):
        stream.choice.leave_short_way()
        seen = stream.observer
        assert "".join(stream.said) == "".join(
            f"w{n:02d} " for n in range(len(stream.choice.flow.emitted))
        )  # (1)
        empty = [0] * (len(ITL_BOUNDS_S) + 1)
        assert (seen.itl_counts or empty) == (told.itl_counts or empty)  # (2)
        assert seen.itl_max_s == told.itl_max_s
        assert seen.itl_total_s == pytest.approx(told.itl_total_s)
        assert seen.num_tokens == told.num_tokens == stream.told == len(stream.choice.flow.emitted)  # (3)
