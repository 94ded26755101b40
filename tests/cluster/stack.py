"""`expertmesh run` as a user starts it, for tests: own ports, own folder, and a mark on every process of it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

from services.ports import free_port

MARK = "EXPERTMESH_TEST_MARK"
READY_WITHIN_S = 420.0
BIN = Path(sys.executable).parent


def wait_for(condition: Callable[[], bool], what: str, within_s: float = 60.0) -> None:
    """Poll a real process. Raises TimeoutError."""
    until = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError(f"{what} did not happen within {within_s:.0f} s")
        time.sleep(0.05)


def _as_a_terminal_would() -> None:
    """What a script starts with `&` ignores SIGINT, and so does all that it starts: Python's Ctrl-C, too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Stack:
    """One running mesh. `command` is what follows `expertmesh`'s folder: ("expertmesh", "run", …)."""

    def __init__(self, folder: Path, *command: str, environment: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.http_port, self.grpc_port = free_port(), free_port()
        self.mark = uuid.uuid4().hex
        self.base_url = f"http://127.0.0.1:{self.http_port}"
        self._output = folder / "output.log"
        self._ready = folder / "ready"
        # vLLM, where it ran in this process, left variables that no shell of a user has (LD_PRELOAD with an OpenMP
        # that reads its thread count at once, for one): two ranks of one core each come to a near stop with them.
        unwanted = (
            "EXPERTMESH_", "RAY_", "PYTHONDONTWRITEBYTECODE", "VLLM_", "OMP_", "TORCH", "LD_PRELOAD", "NUMEXPR_",
        )  # fmt: skip
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
        if cache := os.environ.get("EXPERTMESH_CACHE_DIR"):
            inherited["EXPERTMESH_CACHE_DIR"] = cache
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [BIN / command[0], *command[1:]],
                cwd=folder,
                env={
                    **inherited,
                    "EXPERTMESH_HTTP_PORT": str(self.http_port),
                    "EXPERTMESH_GRPC_PORT": str(self.grpc_port),
                    "EXPERTMESH_READY_FILE": str(self._ready),
                    MARK: self.mark,
                    **(environment or {}),
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_as_a_terminal_would,
            )

    @property
    def output(self) -> str:
        return self._output.read_text(errors="replace")

    @property
    def key(self) -> str:
        return (self.folder / ".expertmesh" / "dev-key").read_text().strip()

    def wait_said(self, text: str, within_s: float = READY_WITHIN_S) -> None:
        """Until the text is on the screen. Raises with the whole screen when the process ended before."""
        self._wait(lambda: text in self.output, within_s)

    def wait_ready(self) -> None:
        self._wait(lambda: self._ready.exists() and self._ready.read_text() != "", READY_WITHIN_S)

    def _wait(self, condition: Callable[[], bool], within_s: float) -> None:
        try:
            wait_for(lambda: condition() or self.process.poll() is not None, "the mesh", within_s)
        except TimeoutError as error:
            raise TimeoutError(f"{error}:\n{self.output[-6000:]}") from None
        if not condition():
            raise RuntimeError(f"ended with {self.process.returncode}:\n{self.output[-6000:]}")

    def pids(self, name: str = "") -> list[int]:
        """Living processes of this stack whose command line or name contains `name`: all that descend from it, and
        all that carry its mark, whoever their parent is now (some overwrite their environment with their title)."""
        mark = f"{MARK}={self.mark}".encode()
        ours: dict[int, str] = {}
        parents: dict[int, int] = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                if state == "Z":
                    continue
                title = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                ours[int(entry.name)] = title + (entry / "comm").read_text()
                parents[int(entry.name)] = (
                    self.process.pid if mark in (entry / "environ").read_bytes() else int(parent)
                )
            except OSError:
                continue

        def descends(pid: int | None) -> bool:
            while pid is not None and pid != self.process.pid:
                pid = parents.get(pid)
            return pid is not None

        return [pid for pid, title in ours.items() if name in title and descends(pid)]

    def stop(self, how: signal.Signals = signal.SIGTERM, within_s: float = 60.0) -> int:
        """Ask it to end and return its exit code. Raises TimeoutError with what it said."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            return self.process.wait(within_s)
        except subprocess.TimeoutExpired as error:
            self.process.kill()
            raise TimeoutError(f"{error}:\n{self.output[-6000:]}") from None

    def call(
        self,
        path: str,
        body: object | bytes | None = None,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers (lower case) and body; a non-2xx is an answer too. `body` bytes go as they are."""
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        request = urllib.request.Request(
            self.base_url + path,
            data,
            {
                "Authorization": f"Bearer {self.key if key is None else key}",
                "Content-Type": "application/json",
                **(headers or {}),
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=300) as answer:
                return answer.status, _lower(answer.headers.items()), answer.read()
        except urllib.error.HTTPError as error:
            return error.code, _lower(error.headers.items()), error.read()

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a family's samples that carry these labels (of a histogram: its count)."""
        _, _, text = self.call("/metrics")
        pattern = rf"^{name}(?:_count)?({{[^}}]*}})? ([0-9.e+-]+)$"
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        return sum(
            float(value)
            for held, value in re.findall(pattern, text.decode(), re.MULTILINE)
            if all(one in held for one in wanted)
        )


def _lower(items: object) -> dict[str, str]:
    return {name.lower(): value for name, value in items}  # type: ignore[attr-defined]  # http.client's list of pairs
