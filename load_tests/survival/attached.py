"""A running `expertmesh run` as its operator sees it: more applications beside it, releases, workers.

Rules: commands that the documentation names, run as subprocesses with what they print kept; the private Ray's address
and token come from its processes.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path
from typing import Any

from tests.cluster.stack import Stack

from ..bench.processes import command_line

BIN = Path(sys.executable).parent
ASK_AGAIN = 100


class Attached:
    """`revisions()` and `release()` are the queue's answers; `serve` runs Serve's own command line."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        raylet = next(pid for pid in stack.pids("raylet") if "--gcs-address=" in command_line(pid))
        found = re.search(r"--gcs-address=(\S+)", command_line(raylet))
        assert found is not None
        environ = Path(f"/proc/{raylet}/environ").read_bytes().decode().split("\0")
        self.environment = dict(one.split("=", 1) for one in environ if "=" in one)
        self.environment["RAY_ADDRESS"] = found[1]
        self.environment.pop("EXPERTMESH_READY_FILE", None)

    async def serve(self, *words: str) -> None:
        """`serve …`, to its end. Raises RuntimeError with what it said."""
        await self._run(str(BIN / "serve"), *words)

    async def side(self, *words: str) -> None:
        """`expertmesh side …`, to its end. Raises RuntimeError with what it said."""
        await self._run(str(BIN / "expertmesh"), "side", *words)

    async def begin(self, *words: str) -> asyncio.subprocess.Process:
        """A command that acts on this mesh, under way."""
        return await asyncio.create_subprocess_exec(
            *words, env=self.environment, cwd=self.stack.folder, stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip

    async def _run(self, *words: str) -> None:
        process = await self.begin(*words)
        said, _ = await process.communicate()
        if process.returncode:
            raise RuntimeError(f"{' '.join(words)}: {said.decode()[-3000:]}")

    async def ask(self, wish: dict[str, Any]) -> dict[str, Any]:
        """What `expertmesh rollout …` and `expertmesh drain` send (services/cli/rollout.py). A gateway or queue that is
        away just now is asked again. Raises RuntimeError when the queue says no."""
        status, answer = 503, b""
        for _ in range(ASK_AGAIN):
            try:
                status, _, answer = await asyncio.to_thread(self.stack.call, "/admin/queue", wish)
            except OSError:
                status, answer = 503, b""
            if status == 200:
                return json.loads(answer)
            if status < 500:
                raise RuntimeError(answer.decode())
            await asyncio.sleep(0.2)
        raise RuntimeError(f"the queue does not answer: {status} {answer.decode()}")

    async def status(self) -> dict[str, Any]:
        """Of the one model; a queue that has just begun knows none yet."""
        return (await self.ask({"type": "status"})).get("sim", {"revisions": {}})

    async def until_phase(self, *phases: str, within_s: float = 120.0) -> dict[str, Any]:
        """The release, once it is in one of these."""
        async with asyncio.timeout(within_s):
            while (release := (await self.status()).get("release", {})).get("phase") not in phases:
                await asyncio.sleep(0.2)
        return release

    async def until_engines(self, revision: str, number: int, within_s: float = 120.0) -> None:
        """So many of this revision serve."""
        async with asyncio.timeout(within_s):
            while (await self.status())["revisions"].get(revision, {"engines": 0})["engines"] != number:
                await asyncio.sleep(0.2)
