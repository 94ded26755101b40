"""1. A closed log verifies. 2. After any single change of a byte, a line or a file it does not. 3. After a crash at any
byte it verifies again once the gateway came back, and says what happened. 4. What was signed cannot be cut off."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.audit.chain import Head, link, parse
from services.audit.record import Seen
from services.audit.report import Kind
from services.audit.seat import chains_in
from services.audit.segments import STATE_FILE
from services.audit.verify import verify_all
from services.clock import VirtualClock
from tests.properties.audit.audit_logs import KEYS, body, open_log, verified, write_log

SHARED = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("closed")
    write_log(folder, 30, runs=2)
    return folder


def copy_of(log: Path, folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(log, folder)
    return folder


def files_of(log: Path) -> list[Path]:
    return sorted(log.rglob("*.jsonl"))


def test_a_closed_log_verifies(closed: Path) -> None:
    report = verified(closed)
    assert (report.finding, report.calls, report.closed, report.unsigned) == (None, 60, True, 0)
    assert len(files_of(closed)) >= 4


@SHARED
@given(data=st.data())
def test_any_byte(closed: Path, tmp_path: Path, data: st.DataObject) -> None:
    log = copy_of(closed, tmp_path / "log")
    file = data.draw(st.sampled_from(files_of(log)))
    content = bytearray(file.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    how = data.draw(st.sampled_from(("flip", "drop", "add")))
    if how == "flip":
        content[at] ^= data.draw(st.integers(1, 255))
    elif how == "drop":
        del content[at]
    else:
        content.insert(at, data.draw(st.integers(0, 255)))
    if bytes(content) == file.read_bytes():
        return  # dropped or added inside a run of the same byte: it is the same file only when nothing changed
    file.write_bytes(content)
    finding = verified(log).finding
    assert finding is not None and finding.chain == "host.0"


@SHARED
@given(data=st.data())
def test_any_line(closed: Path, tmp_path: Path, data: st.DataObject) -> None:
    log = copy_of(closed, tmp_path / "log")
    file = data.draw(st.sampled_from(files_of(log)))
    lines = file.read_bytes().splitlines(keepends=True)
    at = data.draw(st.integers(0, len(lines) - 1))
    how = data.draw(st.sampled_from(("remove", "repeat", "swap", "invent", "rehash")))
    if how == "remove":
        del lines[at]
    elif how == "repeat":
        lines.insert(at, lines[at])
    elif how == "swap":
        other = data.draw(st.integers(0, len(lines) - 1).filter(lambda number: number != at))
        lines[at], lines[other] = lines[other], lines[at]
    else:  # one who knows how lines are made, and has no key
        line = parse(lines[at].rstrip(b"\n"))
        assert line is not None
        record = json.loads(line.body) | {"time": "2020-01-01T00:00:00.000Z"}
        made, _ = link(Head(line.seq - 1, line.prev), json.dumps(record).encode())
        if how == "invent":
            lines.insert(at, made)
        else:
            lines[at] = made
    file.write_bytes(b"".join(lines))
    finding = verified(log).finding
    assert finding is not None
    if how == "rehash" or how == "swap":
        return
    assert finding.segment >= file.name


@SHARED
@given(data=st.data())
def test_any_file(closed: Path, tmp_path: Path, data: st.DataObject) -> None:
    log = copy_of(closed, tmp_path / "log")
    files = files_of(log)
    file, other = data.draw(st.permutations(files).map(lambda order: order[:2]))
    how = data.draw(st.sampled_from(("remove", "exchange", "empty", "rename", "state")))
    if how == "remove":
        file.unlink()
    elif how == "exchange":
        one, two = file.read_bytes(), other.read_bytes()
        file.write_bytes(two)
        other.write_bytes(one)
    elif how == "empty":
        file.write_bytes(b"")
    elif how == "rename":
        file.rename(file.with_name("000099.jsonl"))
    else:
        (log / "host.0" / STATE_FILE).unlink()
    assert verified(log).finding is not None


@SHARED
@given(data=st.data())
def test_what_was_signed_cannot_be_cut_off(closed: Path, tmp_path: Path, data: st.DataObject) -> None:
    """By whoever cannot bring back a key that was destroyed; and by nobody, where a checkpoint is kept elsewhere."""
    log = copy_of(closed, tmp_path / "log")
    witnessed = verified(log).signed
    assert witnessed is not None
    files = files_of(log)
    last = data.draw(st.integers(0, len(files) - 1))
    lines = files[last].read_bytes().splitlines(keepends=True)
    kept = data.draw(st.integers(1, len(lines) - (last == len(files) - 1)))
    for file in files[last + 1 :]:
        file.unlink()
    files[last].write_bytes(b"".join(lines[:kept]))
    finding = verified(log).finding
    if kept == len(lines) and last == len(files) - 1:
        return
    assert finding is not None and finding.kind in (Kind.TRUNCATED, Kind.KEY)
    (report,) = verify_all(chains_in(log), KEYS, witnessed=[witnessed], part=True)
    assert report.finding is not None and report.finding.kind is Kind.TRUNCATED


@SHARED
@given(cut=st.integers(0, 4000), unsigned=st.integers(1, 12))
def test_a_crash_at_any_byte_is_told_not_hidden(tmp_path: Path, cut: int, unsigned: int) -> None:
    """Nothing that was signed is lost in a crash: the disk had it. The rest may be, from any byte on."""
    folder = tmp_path / "log"
    shutil.rmtree(folder, ignore_errors=True)
    clock = VirtualClock()
    log = open_log(folder, clock, max_file_bytes=1 << 20)
    clock.advance(20.0)
    log.write(body(0))
    log.flush()  # signed
    for number in range(unsigned):
        log.write(body(number))
        log.flush()
    log._seat.close()  # killed
    (file,) = files_of(folder)
    content = file.read_bytes()
    signed_end = content.index(b"\n", content.index(b'"sig"')) + 1
    left = max(signed_end, len(content) - cut)
    file.write_bytes(content[:left])
    whole = content[:left].endswith(b"\n")
    before = verified(folder).finding
    assert before is None if whole else before is not None and before.kind is Kind.TORN
    again = open_log(folder, clock)
    again.write(body(99))
    again.close()
    report = verified(folder)
    assert report.finding is None and report.closed
    first = json.loads(files_of(folder)[1].read_bytes().splitlines()[0])
    assert first["why"] == "crash" and ("torn" in first) == (not whole)


def test_a_chain_that_vanished_is_missed_by_its_neighbours(tmp_path: Path) -> None:
    clock = VirtualClock()
    one = open_log(tmp_path, clock)
    two = open_log(tmp_path, clock)
    assert (one.chain, two.chain) == ("host.0", "host.1")
    two.write(body(1))
    two.close()
    one.close()
    again = open_log(tmp_path, clock)
    again.close()
    assert [report.finding for report in verify_all(chains_in(tmp_path), KEYS)] == [None, None]
    shutil.rmtree(tmp_path / "host.1")
    found = [report.finding for report in verify_all(chains_in(tmp_path), KEYS)]
    assert found[1] is not None and found[1].kind is Kind.CHAIN_MISSING


def test_a_chain_written_anew_is_seen_by_who_kept_a_checkpoint(tmp_path: Path) -> None:
    write_log(tmp_path / "a", 12)
    write_log(tmp_path / "b", 12)
    kept = verified(tmp_path / "a").signed
    assert kept is not None
    assert verified(tmp_path / "b").finding is None
    finding = verified(tmp_path / "b", witnessed=[kept]).finding
    assert finding is not None and finding.kind is Kind.CHANGED
    early = verified(tmp_path / "a", witnessed=[Seen("host.0", kept.seq + 5, kept.hash)]).finding
    assert early is not None and early.kind is Kind.TRUNCATED
