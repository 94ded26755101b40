"""`expertmesh run` starts what it says, refuses in one sentence, and leaves nothing behind however it ends."""

from __future__ import annotations

import os
import signal
import socket
import stat
from pathlib import Path

import pytest

from services.gateway import json_key_store
from tests.cluster.stack import Stack, wait_for


def test_a_taken_port_is_one_clear_sentence(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        stack = Stack(
            tmp_path, "expertmesh", "run", "--graph", "sim", environment={"EXPERTMESH_HTTP_PORT": port}
        )
        assert stack.process.wait(60) == 2
    assert stack.output.startswith("error: ")
    assert port in stack.output
    assert "EXPERTMESH_HTTP_PORT" in stack.output
    assert "Traceback" not in stack.output


@pytest.mark.parametrize(
    ("arguments", "environment", "named"),
    [
        (("--graph", "sim", "engines=none"), {}, "engines"),
        (("--graph", "sim", "shrads=2"), {}, "shrads"),
        (("--graph", "prod"), {}, "no weights"),
        (("--graph", "sim"), {"EXPERTMESH_API_KEY": "short"}, "EXPERTMESH_API_KEY"),
        (("--graph", "sim"), {"EXPERTMESH_GRPC_PORT": "many"}, "EXPERTMESH_GRPC_PORT"),
    ],
)
def test_wrong_settings_are_refused_by_name(
    tmp_path: Path, arguments: tuple[str, ...], environment: dict[str, str], named: str
) -> None:
    stack = Stack(tmp_path, "expertmesh", "run", *arguments, environment=environment)
    assert stack.process.wait(120) == 2
    assert named in stack.output
    assert "Traceback" not in stack.output
    assert stack.pids() == []


@pytest.mark.parametrize(
    ("moment", "how"),
    [
        ("loading Ray Serve", signal.SIGINT),
        ("starting the five deployments", signal.SIGTERM),
        ("Gateway: 1 of 1 up", signal.SIGHUP),
    ],
)
def test_it_leaves_nothing_when_ended_half_way(tmp_path: Path, moment: str, how: signal.Signals) -> None:
    stack = Stack(tmp_path, "expertmesh", "run", "--graph", "sim")
    try:
        stack.wait_said(moment)
        assert stack.stop(how) == 0, stack.output
        assert stack.pids() == []
    finally:
        stack.stop()


@pytest.mark.parametrize("victim", ["the guard", "the runner"])
def test_it_leaves_nothing_when_killed_outright(tmp_path: Path, victim: str) -> None:
    stack = Stack(tmp_path, "expertmesh", "run", "--graph", "sim")
    try:
        stack.wait_said("Ray is up")
        runner = next(pid for pid in stack.pids("expertmesh run") if pid != stack.process.pid)
        os.kill(stack.process.pid if victim == "the guard" else runner, signal.SIGKILL)
        wait_for(lambda: stack.pids() == [], "the end of every process", 60)
        stack.process.wait(10)
    finally:
        stack.stop()


def test_it_ends_only_what_it_started(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    stays = Stack(first, "expertmesh", "run", "--graph", "sim")
    goes = Stack(second, "expertmesh", "run", "--graph", "sim")
    try:
        stays.wait_ready()
        goes.wait_ready()
        assert goes.stop(signal.SIGINT) == 0
        assert goes.pids() == []
        status, _, _ = stays.call("/generate", {"prompt": "still there?", "max_tokens": 4})
        assert status == 200
    finally:
        goes.stop()
        stays.stop()
    assert stays.pids() == []


def test_the_dev_key_is_kept_and_private(sim_mesh: Stack) -> None:
    path = sim_mesh.folder / ".expertmesh" / "dev-key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sim_mesh.key in sim_mesh.output
    assert sim_mesh.key not in (sim_mesh.folder / ".expertmesh" / "keys.json").read_text()


def test_serve_run_alone_leaves_the_port_to_our_gateway(tmp_path: Path) -> None:
    """`serve run graphs.sim`: no Serve proxy anywhere, tokens on our port. Fails if a new Ray starts one."""
    keys = tmp_path / "keys.json"
    json_key_store.add(keys, "em-serve-run-test-key", key_id="t", tenant="t")
    ray_folder = tmp_path.parents[2] / f"r{os.getpid()}"  # short: Unix sockets lie below it
    stack = Stack(
        tmp_path, "serve", "run", "--address", "local", "graphs.sim", "engines=1",
        environment={
            "EXPERTMESH_KEYS_FILE": str(keys),
            "RAY_TMPDIR": str(ray_folder),
            "RAY_AUTH_MODE": "disabled",
            "RAY_USAGE_STATS_ENABLED": "0",
        },
    )  # fmt: skip
    try:
        stack.wait_said("is ready at /")
        wait_for(lambda: stack.call("/readyz", key="")[0] == 200, "readiness")
        status, _, _ = stack.call("/generate", {"prompt": "hi", "max_tokens": 3}, key="em-serve-run-test-key")
        assert status == 200
        assert stack.pids("Proxy") == []
    finally:
        stack.stop(signal.SIGINT)
        for pid in stack.pids():  # `serve run` has no guard: its Ray is ours to end
            os.kill(pid, signal.SIGKILL)
