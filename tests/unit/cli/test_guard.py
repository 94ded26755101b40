"""The guard ends every descendant, whatever it did to hide, and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

GUARDED = """
import os, subprocess, sys, time
from pathlib import Path
from services.cli import guard

def work() -> int:
    hidden = "import os, subprocess, sys; subprocess.Popen(['sleep', '600'], start_new_session=True)"
    subprocess.run([sys.executable, "-c", hidden])
    mode = sys.argv[1]
    Path(sys.argv[2]).write_text("up")
    if mode == "return":
        return 7
    if mode == "raise":
        raise ValueError("broken")
    if mode == "exit":
        raise SystemExit(3)
    try:
        while True:
            time.sleep(600)
    except KeyboardInterrupt:
        if mode == "a library's own end":
            os._exit(1)
        raise

sys.exit(guard.run(work))
"""


def start(tmp_path: Path, mode: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", GUARDED, mode, str(tmp_path / "up")],
        env={**os.environ, "GUARD_MARK": str(tmp_path)},
        stderr=subprocess.DEVNULL,
    )


def left(tmp_path: Path) -> list[int]:
    """Living processes that carry this test's mark."""
    mark = f"GUARD_MARK={tmp_path}".encode()
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def wait_up(tmp_path: Path) -> None:
    while not (tmp_path / "up").exists():
        time.sleep(0.01)  # a real process starts; the suite's timeout is the bound


@pytest.mark.parametrize(("mode", "code"), [("return", 7), ("raise", 1), ("exit", 3)])
def test_the_code_comes_back_and_orphans_end(tmp_path: Path, mode: str, code: int) -> None:
    assert start(tmp_path, mode).wait(30) == code
    assert left(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_an_orderly_end(tmp_path: Path, number: signal.Signals) -> None:
    process = start(tmp_path, "wait")
    wait_up(tmp_path)
    process.send_signal(number)
    assert process.wait(30) == 0
    assert left(tmp_path) == []


def test_a_library_that_ends_the_process_on_its_way_out_changes_nothing(tmp_path: Path) -> None:
    process = start(tmp_path, "a library's own end")
    wait_up(tmp_path)
    process.send_signal(signal.SIGHUP)
    assert process.wait(30) == 0
    assert left(tmp_path) == []
