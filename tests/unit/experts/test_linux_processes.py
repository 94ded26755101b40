"""Real processes, small ones: who descends from whom, and that what is left behind is ended."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from services.experts import linux_processes, vllm_processes

ROOT = Path(__file__).resolve().parents[3]

PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import sys; print(1, flush=True); sys.stdin.read()"],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
sys.stdin.read()
"""


def start_parent(code: str = PARENT) -> tuple[subprocess.Popen[str], int]:
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert parent.stdout is not None
    return parent, int(parent.stdout.readline())


def test_descendants_are_found_and_ended_with_their_shared_memory() -> None:
    parent, child = start_parent()
    segment = Path("/dev/shm") / f"psm_{uuid.uuid4().hex}"
    segment.write_bytes(b"left behind")
    found = linux_processes.with_descendants([parent.pid])
    assert [one.pid for one in found] == [parent.pid, child]
    assert all(one.alive for one in found)
    linux_processes.end(found, [segment])
    assert parent.wait() == -signal.SIGKILL
    assert not any(one.alive for one in found)
    assert not segment.exists()


def test_only_segments_of_the_named_processes_are_found() -> None:
    segment = Path("/dev/shm") / f"psm_{uuid.uuid4().hex}"
    with segment.open("wb+"):
        me = linux_processes.process(os.getpid())
        assert me is not None
        assert segment in linux_processes.shared_memory([me])
        assert segment not in linux_processes.shared_memory([linux_processes.Process(1, 0)])
    segment.unlink()


def test_a_pid_that_was_given_away_again_is_not_the_old_process() -> None:
    me = linux_processes.process(os.getpid())
    assert me is not None
    assert me.alive
    assert not linux_processes.Process(me.pid, me.started - 1).alive


GUARDED = """
import subprocess, sys
from services.experts.orphan_guard import OrphanGuard
guard = OrphanGuard()
child = subprocess.Popen([sys.executable, "-c", "import sys; print(1, flush=True); sys.stdin.read()"],
                         stdin=open("/dev/zero"), stdout=subprocess.PIPE)
guard.ready()
print(child.pid, flush=True)
if sys.stdin.readline() == "close\\n":
    guard.close()
    print("closed", flush=True)
sys.stdin.read()
"""


FORKED = """
import os, signal, sys
from services.experts.orphan_guard import OrphanGuard
guard = OrphanGuard()
child = os.fork()
if not child:
    signal.pause()
guard.ready()
print(child, flush=True)
sys.stdin.read()
"""
"""As an engine core that is a fork of its rank, and has all its pipes."""


@pytest.mark.parametrize("program", [GUARDED, FORKED])
def test_what_a_killed_rank_leaves_is_ended(program: str) -> None:
    parent, child_pid = start_parent(program)
    child = linux_processes.process(child_pid)
    assert child is not None
    guards = [
        one
        for one in linux_processes.with_descendants([parent.pid])
        if one.pid not in (parent.pid, child_pid)
    ]
    assert len(guards) == 1
    parent.kill()
    parent.wait()
    if guards[0].alive:
        ended = os.pidfd_open(guards[0].pid)
        assert select.select([ended], [], [], 20.0)[0], "the guard did not end"
        os.close(ended)
    assert not child.alive


def test_a_rank_that_ends_in_order_is_left_alone() -> None:
    parent, child_pid = start_parent(GUARDED)
    assert parent.stdin is not None
    assert parent.stdout is not None
    parent.stdin.write("close\n")
    parent.stdin.flush()
    assert parent.stdout.readline() == "closed\n"
    child = linux_processes.process(child_pid)
    assert child is not None
    assert child.alive
    linux_processes.end(linux_processes.with_descendants([parent.pid]))
    parent.wait()


def test_a_process_on_its_way_out_is_seen_before_it_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the kernel writes it: 4 among the flags from the first moment of an exit on, whatever it then waits for."""
    (tmp_path / "7").mkdir()
    monkeypatch.setattr(linux_processes, "_PROC", tmp_path)
    core = linux_processes.Process(7, 1234)

    def says(state: str, flags: int, started: int = 1234) -> bool:
        fields = [state, "1", "7", "7", "0", "-1", str(flags), *["0"] * 12, str(started), "0"]
        (tmp_path / "7" / "stat").write_text(f"7 (VLLM::Engine (x)) {' '.join(fields)}")
        return core.ending

    assert not says("S", 0x400100)
    assert says("D", 0x400104)
    assert says("Z", 0x400100)
    assert says("S", 0x400100, started=99)
    (tmp_path / "7" / "stat").unlink()
    assert core.ending


def test_a_living_process_is_not_ending_and_a_killed_one_is() -> None:
    parent, child = start_parent()
    found = {one.pid: one for one in linux_processes.with_descendants([parent.pid])}
    assert not any(one.ending for one in found.values())
    assert linux_processes.title(found[child]).startswith(sys.executable)
    parent.kill()
    parent.wait()
    assert found[parent.pid].ending
    linux_processes.end(found.values())
    assert all(one.ending for one in found.values())


def test_an_engine_is_lost_when_a_process_of_it_ends_or_stays_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "7").mkdir()
    monkeypatch.setattr(linux_processes, "_PROC", tmp_path)
    watch = vllm_processes.Watch([linux_processes.Process(7, 1234)])

    def seen(states: str) -> list[str]:
        out: list[str] = []
        for state in states:
            fields = [state, "1", "7", "7", "0", "-1", "0", *["0"] * 12, "1234", "0"]
            (tmp_path / "7" / "stat").write_text(f"7 (VLLM::Engine) {' '.join(fields)}")
            out.append(watch.why_lost())
        return out

    assert not any(seen("RSTTTTSTTTTR"))  # half a second at most
    assert not any(seen("tttttttt"))  # a debugger's
    assert seen("TTTTT") == ["", "", "", "", "process 7 of the engine was stopped"]
    assert seen("SZ") == ["", "process 7 of the engine ends"]
