"""Kills of real engines: are the greedy answers still what they are without?

    python -m load_tests.survival vllm [--kills 5] [--lanes 6] [--seed 1]

Two ranks of the embedded model (a mixture of eight experts, float32) on vLLM's CPU engine, each a process on a core of
its own, as `services.experts` runs them; gateway, queue, cache and links are the mesh's, in this process, without Ray.
First each prompt's answer is taken alone, then with `--lanes` at a time and nobody killed: what differs then is the
engine's own doing. Then one rank after another gets SIGKILL at a random offset, in turn its whole process and vLLM's
engine core alone, each once the last one's successor serves, while the lanes ask on. Every answer is compared.
"""

# pyright: reportPrivateUsage=false
# The mesh's own way to its parts, as its gateways have it.

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from services.experts import linux_processes, model_store
from services.experts.commission import Commission
from services.experts.engine import EngineInfo, ModelCard
from services.experts.groups import RankPlace
from services.gateway.node import GatewayNode, Peers
from services.telemetry import names
from tests.cluster.prompts import PROMPTS
from tests.mesh.local_mesh import LocalMesh, local_mesh

TOKENS = 32
NUM_RANKS = 2
READY_WITHIN_S = 120.0
SETTLED_S = 1.0


class RankProcess:
    """One rank. `restart` after it died."""

    def __init__(self, number: int, mesh: LocalMesh) -> None:
        self.number, self._mesh, self._lives = number, mesh, 0
        self.info: EngineInfo | None = None
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Returns when it serves. Raises RuntimeError when it ends before."""
        self._lives += 1
        mesh = self._mesh
        name, place = f"rank-{self.number}.{self._lives}", RankPlace(cores=(self.number,))
        wish = Commission(mesh.config.experts.model_dump_json().encode(), place, name, "127.0.0.1")
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "load_tests.survival.vllm_rank", msgspec.json.encode(wish).decode(),
            mesh.queue.address, mesh.queue.key.hex(),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        assert self._process.stdout is not None
        async with asyncio.timeout(READY_WITHIN_S):
            while line := await self._process.stdout.readline():
                if line.startswith(b'{"model"'):
                    self.info = msgspec.json.decode(line, type=EngineInfo)
                    return
        raise RuntimeError(f"{name} ended before it served")

    def kill(self, *, core: bool) -> str:
        """SIGKILL to its process, or to vLLM's engine core below it; returns whom it met."""
        assert self._process is not None
        family = linux_processes.with_descendants([self._process.pid])
        cores = [one.pid for one in family if "VLLM::EngineCore" in _title(one.pid)]
        victim = cores[0] if core and cores else self._process.pid
        os.kill(victim, signal.SIGKILL)
        return "engine core" if victim != self._process.pid else "rank"

    async def restart(self) -> None:
        """As Serve does, when its process is gone."""
        assert self._process is not None
        await self._process.wait()
        await self.start()

    async def stop(self) -> None:
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(20):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


class Rig:
    """Gateway and ranks over a mesh that has none; what was asked, and what was wrong."""

    def __init__(self, mesh: LocalMesh) -> None:
        self.mesh = mesh
        self.ranks = [RankProcess(number, mesh) for number in range(NUM_RANKS)]
        self.truth: dict[str, str] = {}
        self.asked = 0
        self.wrong: list[str] = []
        self.pauses_s: list[float] = []
        self.killed_s = 0.0

    async def start(self) -> None:
        mesh = self.mesh
        await asyncio.gather(*(rank.start() for rank in self.ranks))
        info = self.ranks[0].info
        assert info is not None

        async def card() -> ModelCard:
            return ModelCard(info, mesh.config.experts.model_path)

        peers = Peers(mesh._queue, mesh._cache, card, mesh._policy, journal=mesh._find_journal)
        gateway = GatewayNode(mesh.config, peers)
        await gateway.start()
        mesh.gateways.append(gateway)
        await mesh.until_ready()

    async def ask(self, prompt: str) -> str:
        """The text, event by event. An answer that is told an error is ""."""
        body = {"model": model_store.EMBEDDED, "prompt": prompt, "max_tokens": TOKENS, "temperature": 0,
                "ignore_eos": True, "stream": True}  # fmt: skip
        response = await self.mesh.post("/v1/completions", body, headers={"cache-control": "no-store"})
        text, last_s = "", 0.0
        async for event in response.events():
            now_s = time.monotonic()
            if "error" in event:
                return f"error: {event['error']}"
            if 0.0 < last_s <= self.killed_s < now_s:
                self.pauses_s.append(now_s - last_s)
            text, last_s = text + "".join(choice["text"] for choice in event["choices"]), now_s
        return text

    async def check(self, prompt: str) -> None:
        text = await self.ask(prompt)
        self.asked += 1
        if text != self.truth[prompt]:
            self.wrong.append(f"{prompt!r}: {text!r}, not {self.truth[prompt]!r}")

    @property
    def moved(self) -> int:
        """Streams that were lost and went on elsewhere."""
        families = self.mesh.gateways[0].mesh.telemetry.metrics.snapshot()
        counts = next(one.samples for one in families if one.metric == names.MIGRATIONS)
        return int(sum(sample.value for sample in counts))


async def measure(told: argparse.Namespace, folder: Path) -> int:
    """Print what happened; returns how many answers were wrong."""
    model, rng = await asyncio.to_thread(model_store.prepare), random.Random(told.seed)
    experts = {"engine": "vllm", "model_name": model_store.EMBEDDED, "model_path": str(model.path), "device": "cpu",
               "dtype": "float32", "enforce_eager": True, "max_num_seqs": 16, "max_model_len": 2048,
               "stuck_after_s": 5.0}  # fmt: skip
    async with local_mesh(
        folder, engines=0, gateways=0, experts=experts, queue={"engine_silent_s": 5.0}, within_s=1200.0
    ) as mesh:
        rig = Rig(mesh)
        try:
            await rig.start()
            return await chaos(rig, told, rng)
        finally:
            await asyncio.gather(*(rank.stop() for rank in rig.ranks))


async def chaos(rig: Rig, told: argparse.Namespace, rng: random.Random) -> int:
    for prompt in PROMPTS:
        rig.truth[prompt] = await rig.ask(prompt)
    for _ in range(2):
        await asyncio.gather(*map(rig.check, PROMPTS))
    print(f"nobody killed: {rig.asked} answers at once, {len(rig.wrong)} other than alone", flush=True)
    undisturbed, rig.asked, rig.wrong = len(rig.wrong), 0, []
    whom: list[str] = []

    async def kill_all() -> None:
        for number in range(told.kills):
            await asyncio.sleep(SETTLED_S + rng.uniform(0.0, 1.0))
            rank = rng.choice(rig.ranks)
            rig.killed_s = time.monotonic()
            whom.append(rank.kill(core=bool(number % 2)))
            await rank.restart()
            print(f"    {whom[-1]} killed, back after {time.monotonic() - rig.killed_s:.1f} s, "
                  f"{rig.asked} answers so far, {len(rig.wrong)} wrong, {rig.moved} moved", flush=True)  # fmt: skip

    async def lane() -> None:
        while not killing.done():
            await rig.check(rng.choice(PROMPTS))

    killing = asyncio.create_task(kill_all())
    await asyncio.gather(killing, *(lane() for _ in range(told.lanes)))
    pauses = sorted(rig.pauses_s) or [0.0]
    print(
        f"vLLM, float32, {len(whom)} kills ({whom.count('rank')} of ranks, {whom.count('engine core')} of engine "
        f"cores): {rig.asked} answers, {len(rig.wrong)} wrong, {rig.moved} streams moved; pauses across a kill "
        f"p50 {pauses[len(pauses) // 2]:.2f}, longest {pauses[-1]:.2f} s"
    )
    for line in rig.wrong[:5]:
        print(f"    {line}")
    return undisturbed + len(rig.wrong)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        "vllm", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--lanes", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    told = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        return 1 if asyncio.run(measure(told, Path(folder))) else 0
