"""What a user saw of a stream; odd streams are failures."""

from __future__ import annotations

import pytest

from load_tests.__main__ import command
from load_tests.users.answer_reader import SseReader, refused


def chat(content: str, finish: str | None = None) -> bytes:
    end = f'"{finish}"' if finish else "null"
    return f'data: {{"choices":[{{"delta":{{"content":"{content}"}},"finish_reason":{end}}}]}}\n\n'.encode()


USAGE = b'data: {"choices":[],"usage":{"completion_tokens":7}}\n\n'
DONE = b"data: [DONE]\n\n"


def read(*events: bytes) -> SseReader:
    reader = SseReader(10.0)
    for number, event in enumerate(events, 1):
        reader.event(event, 10.0 + number * 0.25)
    return reader


def test_times_are_counted_from_when_it_was_due() -> None:
    seen = read(chat(""), chat("a"), chat("b"), chat("", "stop"), USAGE, DONE).answered(12.0)
    assert (seen.ttft_ms, seen.e2e_ms, seen.gaps_ms) == (500.0, 2000.0, (250.0,))
    assert (seen.num_tokens, seen.error) == (7, "")


def test_completions_and_comments_are_read_too() -> None:
    text = b'data: {"choices":[{"text":"a","finish_reason":"length"}]}\n\n'
    seen = read(b": ping\n\n", text, DONE).answered(11.0)
    assert (seen.num_tokens, seen.error) == (1, "")


@pytest.mark.parametrize(
    ("events", "error"),
    [
        ((chat("a"),), "without its last message"),
        ((chat("a"), DONE), "no finish_reason"),
        ((chat("a", "stop"), chat("b"), DONE), "text after the end"),
        ((b"data: {nonsense\n\n", DONE), "odd chunk"),
        ((b"<html>\n\n",), "odd line"),
        (
            (chat("a"), b'data: {"error":{"message":"lost","code":"engine_lost"}}\n\n', DONE),
            "engine_lost: lost",
        ),
        ((), "without its last message"),
    ],
)
def test_odd_streams_are_failures(events: tuple[bytes, ...], error: str) -> None:
    assert error in read(*events).answered(11.0).error


def test_refusals_say_why() -> None:
    assert (
        refused(429, b'{"error":{"message":"full","type":"overloaded","code":"queue_full"}}', 5).error
        == "429 queue_full"
    )
    assert refused(502, b"<html>", 5).error == "502 no OpenAI error body"


def test_make_loads_words_become_locusts() -> None:
    told = command(["--users", "4", "--seconds", "5"], "http://mesh:1/")
    assert told[told.index("--peak") + 1] == "4" and "--headless" in told
    assert told[told.index("--host") + 1] == "http://mesh:1"
    assert told[-2:] == ["ChatUser", "CompletionUser"]
    assert command(["--protocol", "grpc"], "http://mesh:1")[-1] == "GrpcChatUser"
    assert len(command(["--protocol", "both"], "http://mesh:1")) == len(command([], "http://mesh:1")) + 1
