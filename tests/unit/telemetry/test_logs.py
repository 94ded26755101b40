"""Log lines: what is in them, what is masked, and that writing never gets in the way."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from services.clock import VirtualClock
from services.errors import RequestError
from services.outcome import Reason
from services.request import InferenceRequest, SamplingParams, Usage
from services.telemetry import logs
from services.telemetry.logs import LineWriter, iso_time, request_line, setup_logging
from services.telemetry.masking import mask, mask_text
from services.telemetry.trace import RequestTrace


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def trace(**request: Any) -> RequestTrace:
    made = RequestTrace(VirtualClock(5.0), "req-1", "http")
    asked = InferenceRequest("chat", "m", SamplingParams(16), person="user-4111111111111111", **request)
    principal = SimpleNamespace(tenant="acme", key_id="key-1234567890")
    made.admitted(SimpleNamespace(principal=principal, request=asked, band="vip", prompt_tokens=12))  # type: ignore[arg-type]  # as the port wants
    return made


@pytest.mark.parametrize(
    ("identifier", "masked"),
    [
        ("", ""),
        ("12345678", "********"),
        ("123456789", "1234*6789"),
        ("110101199003074514", "1101********4514"),
    ],
)
def test_identifiers_show_their_ends_only(identifier: str, masked: str) -> None:
    assert mask(identifier) == masked


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("call 13812345678 now", "call 1381***5678 now"),
        ("id 11010119900307451X.", "id 1101********451X."),
        ("mail jane.doe@example.com", "mail jane********.com"),
        ("key em-abcdefghijklmnopqrst", "key em-a********qrst"),
        ("card 4111 1111 1111 1111", "card 4111********1111"),
        ("the prompt has 131072 tokens, the context 4096", "the prompt has 131072 tokens, the context 4096"),
        ("took 0.123456789012 s", "took 0.123456789012 s"),
    ],
)
def test_text_is_searched_for_identifiers(text: str, masked: str) -> None:
    assert mask_text(text) == masked


def test_a_completed_requests_line() -> None:
    done = trace(stream=True)
    done.tokens(1, 5.5)
    done.completed(Usage(12, 3, 4))
    done.end()
    line = json.loads(request_line(done, 1_700_000_000.123))
    assert line["time"] == "2023-11-14T22:13:20.123Z"
    assert (line["event"], line["outcome"], line["level"]) == ("request", "completed", "info")
    assert (line["prompt_length"], line["completion_tokens"], line["cached_tokens"]) == (12, 3, 4)
    assert (line["ttft"], line["stream"], line["tenant"]) == (0.5, True, "acme")
    assert line["person"] == "user********1111" and line["key"] == "key-******7890"
    assert "error_code" not in line


def test_a_failed_requests_line_masks_its_message() -> None:
    failed = trace()
    failed.failed(RequestError(Reason.INVALID_FIELD, "what about 13812345678?"))
    failed.end()
    line = json.loads(request_line(failed, 0.0))
    assert (line["error_code"], line["error"]) == ("invalid_field", "what about 1381***5678?")


def test_lines_reach_the_file_and_survive_rotation(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    writer = LineWriter(str(path))
    writer.write(lambda: b'{"n":1}')
    writer.flush()
    path.rename(tmp_path / "old.jsonl")
    writer.write(lambda: b'{"n":2}')
    writer.close()
    assert lines(tmp_path / "old.jsonl") == [{"n": 1}] and lines(path) == [{"n": 2}]


def test_a_full_queue_and_a_bad_disk_cost_lines_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = LineWriter(str(tmp_path))  # a folder cannot be written to
    monkeypatch.setattr(logs, "MAX_PENDING", 0)
    writer.write(lambda: b"x")
    assert writer.dropped == 1
    monkeypatch.undo()
    writer.write(lambda: b"x")
    writer.close()
    assert writer.dropped == 2


def test_a_file_that_grew_too_large_is_moved_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MAX_FILE_BYTES", 5)
    path = tmp_path / "made" / "requests.jsonl"
    writer = LineWriter(str(path))
    for line in (b"1111111", b"2"):
        writer.write(lambda line=line: line)
        writer.flush()
    writer.close()
    assert path.read_bytes() == b"2\n"
    assert path.with_name("requests.jsonl.1").read_bytes() == b"1111111\n"


def test_a_line_that_cannot_be_made_is_reported_as_one(tmp_path: Path) -> None:
    def broken() -> bytes:
        raise ZeroDivisionError

    writer = LineWriter(str(tmp_path / "log"))
    writer.write(broken)
    writer.close()
    assert lines(tmp_path / "log")[0]["error"] == "ZeroDivisionError"


def test_standard_logging_becomes_json_once(tmp_path: Path) -> None:
    writer = LineWriter(str(tmp_path / "log"))
    setup_logging(writer, name="services.test_logs")
    setup_logging(writer, name="services.test_logs")
    logger = logging.getLogger("services.test_logs.part")
    logger.warning("a key %s", "em-abcdefghijklmnopqrst")
    try:
        raise ValueError("jane.doe@example.com")
    except ValueError:
        logger.exception("it broke")
    writer.close()
    first, second = lines(tmp_path / "log")
    assert first["message"] == "a key em-a********qrst" and first["level"] == "warning"
    assert "ValueError: jane********.com" in second["exception"]


def test_times_are_utc() -> None:
    assert iso_time(0.0) == "1970-01-01T00:00:00.000Z"
