"""The writer when the disk fails, when it is killed, when files are past their time, when records come too fast."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from services.audit.file_log import FileLog
from services.audit.report import Kind
from services.audit.seat import Seat
from services.clock import VirtualClock
from tests.properties.audit.audit_logs import body, open_log, verified

DAY_S = 86_400.0


class WeakSeat(Seat):
    """A disk that takes so many bytes more, or whose fsync fails."""

    room = 1 << 40
    syncs = True

    def _write(self, fd: int, data: memoryview) -> int:
        if not self.room:
            raise OSError(28, "No space left on device")
        num = super()._write(fd, data[: self.room])
        self.room -= num
        return num

    def _sync(self, fd: int) -> None:
        if not self.syncs:
            raise OSError(5, "Input/output error")
        super()._sync(fd)


def events(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for file in sorted(folder.rglob("*.jsonl")) for line in file.open()]


@pytest.mark.parametrize("room", [0, 1, 100, 333, 700, 1500])
@pytest.mark.parametrize("on_failure", ["refuse", "serve"])
def test_a_full_disk(tmp_path: Path, room: int, on_failure: str) -> None:
    seat, clock = WeakSeat(tmp_path, "host"), VirtualClock()
    log = open_log(tmp_path, clock, seat, on_failure=on_failure, max_pending=16)
    seat.room = room
    for number in range(12):
        log.write(body(number))
    assert not log.flush()
    assert log.able is (on_failure == "serve")
    clock.advance(5.0)
    for number in range(12, 60):
        log.write(body(number))
    log.refused()
    log.flush()
    seat.room = 1 << 40
    log.flush()
    assert log.able
    log.close()
    report = verified(tmp_path)
    assert report.finding is None and report.closed
    (gap,) = [one for one in events(tmp_path) if one["event"] == "gap"]
    assert gap["why"] == "No space left on device" and gap["refused"] == 1
    assert report.calls + report.lost == 60 and report.lost == log.lost > 0


def test_a_sync_that_fails_is_a_write_that_failed(tmp_path: Path) -> None:
    seat = WeakSeat(tmp_path, "host")
    log = open_log(tmp_path, VirtualClock(), seat)
    seat.syncs = False
    log.write(body(1))
    log.flush()
    log.flush()
    seat.syncs = True
    log.close()
    report = verified(tmp_path)
    assert (report.finding, report.calls, report.lost) == (None, 1, 0)


def test_records_that_come_too_fast_are_counted(tmp_path: Path) -> None:
    log = open_log(tmp_path, VirtualClock(), on_failure="refuse", max_pending=16)
    for number in range(16):
        assert log.able
        log.write(body(number))
    assert not log.able
    for number in range(20):  # calls that had begun have room for as many again
        log.write(body(number))
    log.close()
    report = verified(tmp_path)
    assert (report.finding, report.calls, report.lost) == (None, 32, 4)


def test_a_key_that_could_not_be_kept_is_kept_before_the_next_record(tmp_path: Path) -> None:
    seat, clock = WeakSeat(tmp_path, "host"), VirtualClock()
    log = open_log(tmp_path, clock, seat)
    clock.advance(20.0)
    log.write(body(1))
    save, tried = seat.save_state, list[int]()

    def fail(state: object) -> None:
        tried.append(1)
        raise OSError(28, "No space left on device")

    seat.save_state = fail  # type: ignore[method-assign,assignment]
    log.flush()
    log.write(body(2))
    log.flush()
    assert len(tried) == 2 and not log.able
    assert verified(tmp_path).finding is None  # it would be found so after a crash now
    seat.save_state = save  # type: ignore[method-assign]
    log.close()
    assert (verified(tmp_path).finding, verified(tmp_path).calls) == (None, 2)


KILLED = """
import sys
from pathlib import Path
from services.clock import SystemClock
from tests.properties.audit.audit_logs import body, open_log
log = open_log(Path(sys.argv[1]), SystemClock(), checkpoint_s=0.01)
for number in range(1_000_000):
    log.write(body(number))
    log.flush()
    print(number, flush=True)
"""


def test_what_was_flushed_outlives_kill_9(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    for line in child.stdout:
        if int(line) >= 200:
            break
    child.send_signal(signal.SIGKILL)
    last = [int(line) for line in child.stdout.read().split()] or [200]
    child.wait()
    log = open_log(tmp_path, VirtualClock())
    log.close()
    report = verified(tmp_path)
    assert report.finding is None and report.calls >= last[-1] + 1
    assert any(one["event"] == "begin" and one["why"] == "crash" for one in events(tmp_path))


def aged(folder: Path, files: int, keep_days: int = 190) -> FileLog:
    """One file for ten days."""
    clock = VirtualClock()
    log = open_log(folder, clock, keep_days=keep_days)
    for number in range(files):
        log.write(body(number))
        log.flush()
        clock.advance(10 * DAY_S)
    return log


def test_files_past_their_time_are_deleted_and_the_rest_verifies(tmp_path: Path) -> None:
    log = aged(tmp_path, 25)
    log.close()
    names = sorted(file.name for file in tmp_path.rglob("*.jsonl"))
    assert names[0] > "000001.jsonl" and 20 <= len(names) <= 21
    assert verified(tmp_path).finding is None
    (tmp_path / "host.0" / names[0]).unlink()
    finding = verified(tmp_path).finding
    assert finding is not None and finding.kind is Kind.FILE_MISSING


def test_nothing_younger_than_six_months_is_deleted(tmp_path: Path) -> None:
    aged(tmp_path, 18, keep_days=180).close()
    assert (tmp_path / "host.0" / "000001.jsonl").exists()


def test_one_seat_each(tmp_path: Path) -> None:
    one, two = Seat(tmp_path, "host"), Seat(tmp_path, "host")
    assert (one.name, two.name) == ("host.0", "host.1")
    one.close()
    assert Seat(tmp_path, "host").name == "host.0"
    two.close()
