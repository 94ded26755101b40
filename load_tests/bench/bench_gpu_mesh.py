"""What the GPU benchmark asks: the mesh as `expertmesh run --graph prod` starts it, and vLLM's own server beside it.

Both are processes of their own whose CPU time, memory and log lines are read from outside. They get the same model,
the same sizes and the same share of the same GPUs.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .processes import Group, command_line, cpu_s, tree

KEY = "em-bench-key-bench-key-bench-key-bench-key"
GRAPH_SIZES = "1,2,4,8,16,32,64,96,128,160,192,224,256,320,384,448,512"
REPLICA = "ray::ServeReplica:default:"
NAMES = {"VLLM::EngineCor": "engine core", "VLLM::VLLM_DP_C": "coordinator"}
PARTS = {"Gateway": "gateway", "PriorityQueue": "queue", "Cache": "cache", "ExpertShards": "rank"}


@dataclass(frozen=True)
class Setup:
    """One group layout. `kv_gb` and `share` are of each GPU."""

    model: str
    shards: int = 1
    groups: int = 1
    tensor_parallel: int = 1
    expert_parallel: str = "auto"
    kv_gb: float = 12.0
    share: float = 0.42
    gateways: int = 1
    max_num_seqs: int = 512
    max_model_len: int = 4096
    stuck_after_s: float = 1.0
    shared: bool = False
    """All groups on the GPUs of the first: Ray is told of each GPU once per group."""

    @property
    def engines(self) -> int:
        return self.groups * self.shards


class Service:
    """One system under test: a process and everything below it."""

    def __init__(self, pid: int, log: Path, ports: tuple[int, ...]) -> None:
        self.pid, self.log, self.ports = pid, log, ports
        self.began_s = time.monotonic()

    @property
    def alive(self) -> bool:
        try:
            return " Z " not in Path(f"/proc/{self.pid}/stat").read_text()
        except OSError:
            return False

    def parts(self) -> dict[str, list[int]]:
        """Living processes by what they do."""
        found: dict[str, list[int]] = {}
        for pid in tree(self.pid):
            found.setdefault(_part(pid), []).append(pid)
        return found

    def cpu_s(self) -> dict[str, float]:
        return {part: cpu_s(pids) for part, pids in self.parts().items()}

    def wait_ready(self, path: str, within_s: float) -> float:
        """Seconds since the start until every port answered 200. Raises TimeoutError with the log's end."""
        for port in self.ports:
            while not _answers(f"http://127.0.0.1:{port}{path}"):
                gone = not self.alive
                if gone or time.monotonic() - self.began_s > within_s:
                    tail = self.log.read_text(errors="replace")[-3000:]
                    raise TimeoutError(f"{'ended' if gone else 'not ready'} after {within_s:.0f} s:\n{tail}")
                time.sleep(0.2)
        return time.monotonic() - self.began_s

    def stop(self, within_s: float = 20.0) -> None:
        """Ask it to end, then end what is left of its tree."""
        pids = tree(self.pid)
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGINT)
        until_s = time.monotonic() + within_s
        while self.alive and time.monotonic() < until_s:
            time.sleep(0.1)
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _part(pid: int) -> str:
    line = command_line(pid)
    with suppress(
        OSError
    ):  # a fork keeps its parent's command line, and has a name of its own, of 15 letters
        name = Path(f"/proc/{pid}/comm").read_text()
        if (part := next((part for begin, part in NAMES.items() if name.startswith(begin)), "")) != "":
            return part
    if line.startswith(REPLICA):
        return PARTS.get(re.split(r"[#\s.]", line[len(REPLICA) :])[0], "rest")
    if "VLLM::APIServer" in line or "vllm.entrypoints" in line:
        return "api server"
    for title in ("EngineCore", "Worker", "DP_Coordinator", "DPCoordinator"):
        if f"VLLM::{title}" in line:
            return "engine core" if title in ("EngineCore", "Worker") else "coordinator"
    if "multiprocessing.spawn" in line or "multiprocessing.fork" in line:
        return "engine core"
    return "rest"


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def start_mesh(
    group: Group,
    setup: Setup,
    folder: Path,
    port: int,
    graph: str = "prod",
    env: Mapping[str, str] | None = None,
) -> Service:
    """`expertmesh run` in a folder of its own, with whatever store and Ray it starts itself."""
    folder.mkdir(parents=True, exist_ok=True)
    options = [f"http_port={port}", f"grpc_port={port + 1}", f"gateways={setup.gateways}"]
    if graph == "prod":
        options += [
            f"model={setup.model}", "name=bench", f"shards={setup.shards}", f"groups={setup.groups}",
            f"tensor_parallel={setup.tensor_parallel}", f"expert_parallel={setup.expert_parallel}",
            f"max_num_seqs={setup.max_num_seqs}", f"max_model_len={setup.max_model_len}",
            f"gpu_kv_cache_gb={setup.kv_gb}", f"gpu_memory_utilization={setup.share}",
            "max_num_batched_tokens=8192", f"cuda_graph_sizes={GRAPH_SIZES}", "dummy_weights=true",
            f"stuck_after_s={setup.stuck_after_s}",
        ]  # fmt: skip
        if setup.shared:
            options.append("remote_gpus=true")  # this host has fewer than Ray is told
    variables = {
        "EXPERTMESH_API_KEY": KEY, "EXPERTMESH_HTTP_PORT": str(port), "EXPERTMESH_GRPC_PORT": str(port + 1),
        "VLLM_LOGGING_LEVEL": "INFO", "PYTHONUNBUFFERED": "1", "TMPDIR": str(folder),
    }  # fmt: skip
    if setup.shared:
        own = [str(gpu) for gpu in range(setup.shards * setup.tensor_parallel)]
        variables["CUDA_VISIBLE_DEVICES"] = ",".join(own * setup.groups)
        variables["RAY_OVERRIDE_RESOURCES"] = json.dumps({"GPU": len(own) * setup.groups})
    log = folder / "mesh.log"
    command = [
        "env",
        "-C",
        str(folder),
        sys.executable,
        "-m",
        "services.cli.main",
        "run",
        "--graph",
        graph,
        *options,
    ]
    return Service(group.start(command, env={**variables, **(env or {})}, log=log).pid, log, (port,))


def server_command(setup: Setup, port: int) -> list[str]:
    """vLLM's own server over the same shape: one HTTP port a data parallel rank."""
    command = [
        sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", setup.model, "--served-model-name", "bench",
        "--load-format", "dummy", "--port", str(port), "--max-model-len", str(setup.max_model_len),
        "--max-num-seqs", str(setup.max_num_seqs), "--max-num-batched-tokens", "8192",
        "--gpu-memory-utilization", str(setup.share), "--kv-cache-memory-bytes", str(int(setup.kv_gb * 1e9)),
        "--cudagraph-capture-sizes", *GRAPH_SIZES.split(","), "--disable-uvicorn-access-log",
        "--no-enable-log-requests", "--tensor-parallel-size", str(setup.tensor_parallel),
    ]  # fmt: skip
    if setup.shards > 1:
        size = str(setup.shards)
        command += [
            "--data-parallel-size", size, "--data-parallel-size-local", size, "--enable-expert-parallel",
            "--data-parallel-multi-port-external-lb",
        ]  # fmt: skip
    return command


def start_servers(group: Group, setup: Setup, folder: Path, port: int) -> list[Service]:
    """One server for each group of the mesh, on GPUs of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    gpus = setup.shards * setup.tensor_parallel
    found: list[Service] = []
    for number in range(setup.groups):
        log, first = folder / f"server-{number}.log", port + 20 * number
        env = {
            "VLLM_WORKER_MULTIPROC_METHOD": "fork",
            "CUDA_VISIBLE_DEVICES": ",".join(str(gpu) for gpu in range(number * gpus, (number + 1) * gpus)),
            "VLLM_CACHE_ROOT": os.environ.get("VLLM_CACHE_ROOT", "/tmp/vcache") + f"/server-{number}",
        }
        process = group.start(server_command(setup, first), env=env, log=log)
        found.append(Service(process.pid, log, tuple(first + rank for rank in range(setup.shards))))
    return found


class Together:
    """Several services as one arm."""

    def __init__(self, services: list[Service]) -> None:
        self.services = services
        self.ports = tuple(
            port for rank in zip(*(one.ports for one in services), strict=True) for port in rank
        )

    def cpu_s(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for service in self.services:
            for part, seconds in service.cpu_s().items():
                found[part] = found.get(part, 0.0) + seconds
        return found

    def wait_ready(self, path: str, within_s: float) -> float:
        return max(service.wait_ready(path, within_s) for service in self.services)

    def stop(self) -> None:
        for service in self.services:
            service.stop(5.0)


def gpu_memory() -> list[int]:
    """MiB in use on each GPU."""
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [int(line) for line in found.stdout.split()]


def engines_up(port: int) -> int:
    """How many engines every gateway calls up, by the metrics page of any; -1 when it does not answer."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/metrics", headers={"Authorization": f"Bearer {KEY}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=2) as answer:
            text = answer.read().decode()
    except (urllib.error.URLError, OSError):
        return -1
    up: dict[str, int] = {}
    for labels, value in re.findall(r"^expertmesh_engine_up\{([^}]*)\} (\S+)$", text, re.M):
        gateway = "".join(re.findall(r'\bgateway="([^"]*)"', labels))
        up[gateway] = up.get(gateway, 0) + (float(value) == 1)
    return min(up.values(), default=0)


def save_logs(folder: Path, out: Path) -> None:
    """What the mesh's processes said, before `expertmesh run` removes it."""
    logs = sorted(folder.glob("expertmesh-*/ray/**/logs"), key=lambda path: len(path.parts))
    if logs:
        kept = shutil.ignore_patterns("*.so", "events", "old", "export_events")
        shutil.copytree(logs[0], out, ignore=kept, dirs_exist_ok=True, symlinks=False)


def write(path: Path, **fields: object) -> None:
    """One line of results, on the screen too."""
    line = json.dumps(fields, default=str)
    print("RESULT " + line, flush=True)
    with path.open("a") as file:
        file.write(line + "\n")


def rounded(values: Mapping[str, float], digits: int = 2) -> dict[str, float]:
    return {name: round(value, digits) for name, value in values.items()}
