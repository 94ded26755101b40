"""Releases, renewed and drained workers on real processes, with streams going: who notices?

    python -m load_tests.survival rollout [--lanes 20] [--only canary,rollback,…]

`expertmesh run --graph sim` with two gateways; other revisions come as second applications (`expertmesh side up
green`), as an operator brings them. Every stream is compared with what one revision of the model must say.

    canary      30% → 100% by weight, sessions stick
    blue_green  everybody at once, back to the first revision
    rollback    the canary's engines die again and again; the verdict takes it back by itself
    ctrl_c      a side that was never up is stopped: it ends alone
    drain       one worker is told to go, another comes
    recycle     each worker in turn is told to go and comes back, one at a time
    rolling     Serve replaces all of the mesh, gateways too (`serve run` with another revision on the same name)
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

from tests.cluster.stack import Stack

from .attached import BIN, Attached
from .streams import KINDS, RESUMABLE, Stream

OLD, NEW = "sim-1", "v2"
TEXT_OF = {OLD: "", NEW: NEW, "v3": "v3"}
"""Revisions as the queue calls them, and as the simulated model's answers know them."""
ENGINE = "ServeReplica:{}:ExpertShards"
BACK_WITHIN_S = 90.0
LIMITS = {"min_requests": 12, "ttft_s": 30.0}


class Crowd:
    """People who ask again and again, each with sessions that stick."""

    def __init__(self, stack: Stack, lanes: int, tokens: int, *, resumable: bool = False) -> None:
        self.stack, self.lanes, self.tokens, self.resumable = stack, lanes, tokens, resumable
        self.streams: list[Stream] = []
        self.seen: dict[str, list[str]] = {}

    async def during(self, what: Awaitable[None]) -> None:
        """They ask while `what` happens, and finish what they began."""
        happening = asyncio.ensure_future(what)
        await asyncio.gather(happening, *(self._lane(number, happening) for number in range(self.lanes)))

    async def _lane(self, number: int, happening: asyncio.Future[None]) -> None:
        person, kinds = f"person {number}", RESUMABLE if self.resumable else KINDS
        salt = f"{time.monotonic_ns()} "
        while not happening.done():
            stream = Stream(
                kinds[len(self.streams) % len(kinds)], len(self.streams), self.tokens, salt=salt, person=person,
                revisions=tuple(TEXT_OF.values()),
            )  # fmt: skip
            self.streams.append(stream)
            await stream.run(self.stack.http_port, self.stack.key, resumable=self.resumable)
            if stream.revision is not None and self.seen.setdefault(person, [])[-1:] != [stream.revision]:
                self.seen[person].append(stream.revision)

    def verdict(self) -> str:
        """One line; ends with what went wrong."""
        bad = [one.error for one in self.streams if one.error]
        by = Counter(one.revision for one in self.streams)
        gaps = sorted(one.longest_gap_s for one in self.streams)
        turns = Counter(len(seen) - 1 for seen in self.seen.values())
        shares = ", ".join(f"{name or OLD} {count}" for name, count in by.items() if name is not None)
        return (
            f"{len(self.streams)} streams ({shares}), failed or wrong {len(bad)}, longest gap {gaps[-1] * 1e3:.0f} ms, "
            f"changes of revision per session {dict(turns)}" + "".join(f"\n    {error}" for error in bad[:5])
        )

    @property
    def failed(self) -> int:
        return sum(bool(one.error) for one in self.streams)


def release(new: str, strategy: str, **more: object) -> dict[str, object]:
    """A plan without holds."""
    plan = {
        "new": new,
        "strategy": strategy,
        "hold_s": 0.0,
        "bake_s": 0.0,
        "patience_s": 120.0,
        "floor_share": 0.5,
        "limits": LIMITS,
        **more,
    }
    return {"type": "start", "plan": plan}


async def bring_up(mesh: Attached, name: str, revision: str, engines: int) -> None:
    """The other side of a release."""
    await mesh.side("up", name, "simulated=true", f"revision={revision}", f"groups={engines}")
    await mesh.until_engines(revision, engines)


async def canary(mesh: Attached) -> None:
    """The new revision takes over step by step; its engines stay."""
    await mesh.ask(release(NEW, "canary", steps=[0.3, 1.0]))
    await bring_up(mesh, "green", NEW, 2)
    await mesh.until_phase("done")


async def blue_green(mesh: Attached) -> None:
    """Back to the first revision, all at once; then the other side goes."""
    await mesh.ask(release(OLD, "blue_green", old=NEW))
    await mesh.until_phase("done")
    await mesh.side("down", "green")


async def rollback(mesh: Attached) -> None:
    """Whatever streams the canary gets are lost with its engines (and saved: they are the verdict, not failures). They
    wait for an engine of theirs: while there is none, nobody may go on with them (ADR 0021)."""
    none_s = 0.0
    await mesh.ask(release("v3", "canary", steps=[0.5, 1.0], limits={**LIMITS, "min_requests": 6}))
    await bring_up(mesh, "bad", "v3", 2)
    began_s, since_s = time.monotonic(), 0.0
    kill_s, killing = began_s, True
    while (told := await mesh.status())["release"]["phase"] != "back" or since_s:
        now_s = time.monotonic()
        if now_s - began_s > BACK_WITHIN_S:
            raise TimeoutError(f"not taken back: {told['release']}")
        if told["revisions"].get("v3", {"engines": 0})["engines"]:
            none_s, since_s = max(none_s, now_s - since_s if since_s else 0.0), 0.0
        else:
            since_s = since_s or now_s
        killing = killing and told["release"]["phase"] not in ("returning", "back")
        if killing and now_s >= kill_s:
            kill_s = now_s + 1.0
            for pid in mesh.stack.pids(ENGINE.format("bad"))[:1]:
                os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(0.1)
    print(f"rollback: the canary had no engine for up to {none_s * 1e3:.0f} ms", flush=True)


async def recycle(mesh: Attached) -> None:
    """Each worker of the first revision goes, and is back before the next one is asked."""
    workers = list((await mesh.status())["revisions"][OLD]["workers"])
    for worker in workers:
        await renew(mesh, worker, len(workers))


async def renew(mesh: Attached, worker: str, engines: int) -> None:
    """`expertmesh drain WORKER`; returns when it is gone and so many serve again."""
    await mesh.ask({"type": "drain", "unit": worker, "within_s": 1.0})
    async with asyncio.timeout(60):
        while True:
            now = (await mesh.status())["revisions"][OLD]
            if worker not in now["workers"] and now["engines"] >= engines:
                return
            await asyncio.sleep(0.2)


async def rolling(mesh: Attached) -> None:
    """Serve replaces every replica of the mesh."""
    env, stack = mesh.environment, mesh.stack
    engines = (await mesh.status())["revisions"][OLD]["engines"]
    await mesh.serve(
        "run", "--non-blocking", "graphs.sim", f"engines={engines}", "gateways=2", f"revision={NEW}",
        f"http_port={stack.http_port}", f"grpc_port={stack.grpc_port}", f"redis_url={env['EXPERTMESH_REDIS_URL']}",
        f"keys_file={env['EXPERTMESH_KEYS_FILE']}",
    )  # fmt: skip
    await mesh.until_engines(NEW, engines)
    await mesh.until_engines(OLD, 0)


async def drain(mesh: Attached) -> None:
    """One worker goes, and another comes for it."""
    before = (await mesh.status())["revisions"][OLD]
    await renew(mesh, next(iter(before["workers"])), before["engines"])


async def ctrl_c(mesh: Attached) -> None:
    """`expertmesh side up` is stopped while it starts (`serve run` would end all of Serve)."""
    name = ENGINE.format("blue")
    starting = await mesh.begin(
        str(BIN / "expertmesh"), "side", "up", "blue", "simulated=true", "revision=v9"
    )
    async with asyncio.timeout(60):
        while not mesh.stack.pids(name):
            await asyncio.sleep(0.1)
        starting.send_signal(signal.SIGINT)
        said, _ = await starting.communicate()
        while mesh.stack.pids(name):
            await asyncio.sleep(0.1)
    if starting.returncode != 130:
        raise RuntimeError(said.decode())
    await mesh.until_engines("v9", 0)


Scene = Callable[[Attached], Coroutine[Any, Any, None]]
SCENES = {scene.__name__: scene for scene in (canary, blue_green, rollback, ctrl_c, drain, recycle, rolling)}


def run(stack: Stack, names: list[str], lanes: int, tokens: int) -> int:
    """The scenes in order, each beside a crowd of its own. Returns the number of streams that failed."""
    failed = 0
    mesh = Attached(stack)
    for name in names:
        crowd = Crowd(stack, lanes, tokens, resumable=name == "rolling")
        began_s = time.monotonic()
        asyncio.run(crowd.during(SCENES[name](mesh)))
        print(f"{name}: {time.monotonic() - began_s:.0f} s, {crowd.verdict()}", flush=True)
        failed += crowd.failed
    return failed


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        "rollout", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lanes", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--only", default=",".join(SCENES))
    told = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        stack = Stack(Path(folder), "expertmesh", "run", "--graph", "sim", "engines=3", "gateways=2")
        try:
            stack.wait_ready()
            return 1 if run(stack, told.only.split(","), told.lanes, told.tokens) else 0
        finally:
            stack.stop()
