"""The numbered rules of stream_table.py and rank.py, with links and an engine that only remember."""

from __future__ import annotations

from typing import Any, cast

import pytest

from services.clock import VirtualClock
from services.experts.engine import EngineInfo, EngineLoadSample, Sink, StreamError
from services.experts.rank import Rank
from services.experts.stream_table import StreamTable
from services.link.asyncio_link import Link
from services.link.messages import Abort, EngineAccepted, EngineDrain, EngineUp, StreamFailed, Submit
from services.outcome import Reason
from services.request import GenerateJob, SamplingParams, TokenFrame, TokenLogprob, pack_ids

JOB = GenerateJob("r", pack_ids([1]), SamplingParams(max_tokens=4))


class QuietEngine:
    """Implements Engine; remembers what it was told."""

    def __init__(self) -> None:
        self.sinks: dict[int, Sink] = {}
        self.aborted: list[int] = []

    async def start(self) -> EngineInfo:
        return EngineInfo("m", "r", 8, 1000, 16, 100, 50)

    def submit(self, stream_id: int, job: GenerateJob, sink: Sink) -> None:
        self.sinks[stream_id] = sink

    def abort(self, stream_id: int) -> None:
        self.aborted.append(stream_id)

    def sample_load(self) -> EngineLoadSample:
        return EngineLoadSample(0, 0, 1000, 0.0, 0)

    async def stop(self) -> None:
        pass


class MemoryLink:
    """What the table uses of a Link."""

    def __init__(self, name: str = "gateway") -> None:
        self.name = name
        self.sent: list[Any] = []
        self.closed = ""

    def send(self, message: object) -> None:
        self.sent.append(message)

    def close(self, why: str = "") -> None:
        self.closed = why


@pytest.fixture
def engine() -> QuietEngine:
    return QuietEngine()


@pytest.fixture
def empties() -> list[bool]:
    return []


@pytest.fixture
def table(engine: QuietEngine, empties: list[bool]) -> StreamTable:
    return StreamTable(engine, lambda: empties.append(True))


def up(table: StreamTable, name: str = "gateway") -> tuple[Link, MemoryLink]:
    link = MemoryLink(name)
    table.link_up(cast(Link, link))
    return cast(Link, link), link


def test_frames_go_to_their_link_under_its_own_stream_id(table: StreamTable, engine: QuietEngine) -> None:
    (one, heard_one), (two, heard_two) = up(table, "one"), up(table, "two")
    table.link_message(one, Submit(7, 0, JOB))
    table.link_message(two, Submit(7, 0, JOB))
    first, second = engine.sinks
    engine.sinks[second](TokenFrame(second, (5,)))
    engine.sinks[first](TokenFrame(first, (6,), "stop"))
    assert heard_one.sent == [TokenFrame(7, (6,), "stop")]
    assert heard_two.sent == [TokenFrame(7, (5,))]
    assert len(table) == 1


def test_a_lost_link_ends_its_streams_and_no_others(table: StreamTable, engine: QuietEngine) -> None:
    (one, _), (two, heard) = up(table, "one"), up(table, "two")
    table.link_message(one, Submit(1, 0, JOB))
    table.link_message(one, Submit(2, 0, JOB))
    table.link_message(two, Submit(1, 0, JOB))
    table.link_down(one, "cut")
    assert sorted(engine.aborted) == [1, 2]
    engine.sinks[3](TokenFrame(3, (9,)))
    assert heard.sent == [TokenFrame(1, (9,))]


def test_an_abort_frees_the_id_for_another_stream(
    table: StreamTable, engine: QuietEngine, empties: list[bool]
) -> None:
    link, heard = up(table)
    table.link_message(link, Submit(1, 0, JOB))
    table.link_message(link, Abort(1))
    table.link_message(link, Abort(1))
    assert engine.aborted == [1]
    assert empties == [True]
    table.link_message(link, Submit(1, 0, JOB))
    engine.sinks[2](TokenFrame(2, (3,)))
    assert heard.sent == [TokenFrame(1, (3,))]


def test_an_id_in_use_is_refused(table: StreamTable) -> None:
    link, heard = up(table)
    table.link_message(link, Submit(1, 0, JOB))
    table.link_message(link, Submit(1, 0, JOB))
    assert [type(message) for message in heard.sent] == [StreamFailed]
    assert len(table) == 1


def test_an_older_epoch_is_refused_and_a_newer_one_fences(table: StreamTable, engine: QuietEngine) -> None:
    link, heard = up(table)
    table.link_message(link, Submit(1, 4, JOB))
    table.link_message(link, Submit(2, 5, JOB))
    table.fence(5)
    assert engine.aborted == [1]
    table.link_message(link, Submit(3, 4, JOB))
    failed = [(m.stream_id, m.reason, m.retryable) for m in heard.sent]
    assert failed == [(1, Reason.ENGINE_LOST, True), (3, Reason.DRAINING, True)]
    assert len(table) == 1


def test_an_engines_error_ends_the_stream(table: StreamTable, engine: QuietEngine) -> None:
    link, heard = up(table)
    table.link_message(link, Submit(9, 0, JOB))
    engine.sinks[1](StreamError(1, Reason.INVALID_FIELD, "no", False))
    assert heard.sent == [StreamFailed(9, Reason.INVALID_FIELD, "no", False)]
    assert len(table) == 0


def test_a_closed_table_refuses(table: StreamTable) -> None:
    link, heard = up(table)
    table.close("this engine drains")
    table.link_message(link, Submit(1, 0, JOB))
    assert heard.sent == [StreamFailed(1, Reason.DRAINING, "this engine drains", True)]


def rank(engine: QuietEngine, clock: VirtualClock | None = None) -> Rank:
    made = Rank(engine, engine_id="e", key=b"k" * 32, clock=clock or VirtualClock())
    made.info = EngineInfo("m", "r", 8, 1000, 16, 100, 50)
    made.address = "127.0.0.1:1"
    return made


def test_a_rank_registers_again_with_its_epoch(engine: QuietEngine) -> None:
    made, link = rank(engine), MemoryLink("queue")
    made.link_up(cast(Link, link))
    made.link_message(cast(Link, link), EngineAccepted("e", 3))
    made.link_message(cast(Link, link), EngineAccepted("someone else", 9))
    made.link_message(cast(Link, link), EngineAccepted("e", 2))
    assert made.epoch == 3
    made.link_up(cast(Link, link))
    ups = [message for message in link.sent if isinstance(message, EngineUp)]
    assert [(one.engine_id, one.epoch, one.key, one.model) for one in ups] == [
        ("e", 0, b"k" * 32, "m"),
        ("e", 3, b"k" * 32, "m"),
    ]
    assert not any(isinstance(message, EngineDrain) for message in link.sent)


def test_a_rank_that_stood_still_takes_itself_for_fenced(engine: QuietEngine) -> None:
    """The queue that fenced it may be dead when it wakes, and the next one knows of no fence."""
    clock, link = VirtualClock(), MemoryLink("queue")
    made = rank(engine, clock)
    made.link_message(cast(Link, link), EngineAccepted("e", 3))
    clock.advance(5.0)  # SIGSTOP: no tick came
    made.link_up(cast(Link, link))
    made.link_message(cast(Link, link), EngineAccepted("e", 4))
    assert [message.epoch for message in link.sent] == [0]
    assert made.epoch == 4


def lumped(interval: int) -> GenerateJob:
    return GenerateJob("r", pack_ids([1]), SamplingParams(max_tokens=4), stream_interval=interval)


@pytest.fixture
def waits() -> list[Any]:
    """Callbacks that wait for their time."""
    return []


@pytest.fixture
def joining(engine: QuietEngine, waits: list[Any]) -> StreamTable:
    return StreamTable(engine, lambda: None, lambda delay_s, callback: waits.append(callback))


def test_frames_are_joined_up_to_the_interval_and_the_first_goes_at_once(
    joining: StreamTable, engine: QuietEngine
) -> None:
    link, heard = up(joining)
    joining.link_message(link, Submit(7, 0, lumped(3)))
    for place in range(6):
        engine.sinks[1](TokenFrame(1, (place,), "stop" if place == 5 else None, None, 2, place))
    assert heard.sent == [
        TokenFrame(7, (0,), None, None, 2, 0),
        TokenFrame(7, (1, 2, 3), None, None, 2, 1),
        TokenFrame(7, (4, 5), "stop", None, 2, 4),
    ]


def test_what_is_held_goes_when_its_time_has_come(
    joining: StreamTable, engine: QuietEngine, waits: list[Any]
) -> None:
    link, heard = up(joining)
    for stream_id in (1, 2):
        joining.link_message(link, Submit(stream_id, 0, lumped(64)))
        engine.sinks[stream_id](TokenFrame(stream_id, (1,), index=0))
        engine.sinks[stream_id](TokenFrame(stream_id, (2,), index=1))
    assert len(heard.sent) == 2 and len(waits) == 1
    waits.pop()()
    assert [frame.token_ids for frame in heard.sent] == [(1,), (1,), (2,), (2,)]
    engine.sinks[1](TokenFrame(1, (3,), index=2))
    assert len(waits) == 1


def test_a_failure_comes_after_the_tokens_before_it(joining: StreamTable, engine: QuietEngine) -> None:
    link, heard = up(joining)
    joining.link_message(link, Submit(1, 0, lumped(64)))
    engine.sinks[1](TokenFrame(1, (1,), index=0))
    engine.sinks[1](TokenFrame(1, (2,), index=1))
    engine.sinks[1](StreamError(1, Reason.ENGINE_LOST, "gone", True))
    assert [type(message) for message in heard.sent] == [TokenFrame, TokenFrame, StreamFailed]


def test_an_aborted_stream_sends_nothing_that_was_held(
    joining: StreamTable, engine: QuietEngine, waits: list[Any]
) -> None:
    link, heard = up(joining)
    joining.link_message(link, Submit(1, 0, lumped(64)))
    engine.sinks[1](TokenFrame(1, (1,), index=0))
    engine.sinks[1](TokenFrame(1, (2,), index=1))
    joining.link_message(link, Abort(1))
    waits.pop()()
    assert len(heard.sent) == 1


def test_joined_log_probabilities_stay_beside_their_tokens(joining: StreamTable, engine: QuietEngine) -> None:
    link, heard = up(joining)
    joining.link_message(link, Submit(1, 0, lumped(64)))
    for place in range(3):
        one = (TokenLogprob(-float(place)),)
        engine.sinks[1](TokenFrame(1, (place,), "length" if place == 2 else None, one, 0, place))
    assert [entry.logprob for entry in heard.sent[-1].logprobs] == [-1.0, -2.0]


def test_what_a_fenced_stream_held_is_not_sent(joining: StreamTable, engine: QuietEngine) -> None:
    link, heard = up(joining)
    joining.link_message(link, Submit(1, 0, lumped(64)))
    engine.sinks[1](TokenFrame(1, (1,), index=0))
    engine.sinks[1](TokenFrame(1, (2,), index=1))
    joining.fence(1)
    assert [type(message) for message in heard.sent] == [TokenFrame, StreamFailed]
