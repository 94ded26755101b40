"""The queue leads the pools: a real gateway, queue and links, simulated engines on machines in memory, and the pool
controller, which asks the queue as it does on AWS. Machines come with the load and go by drain; no request fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import msgspec

from services.capacity.controller import Controller
from services.capacity.memory_nodes import MemoryNodes
from services.capacity.queue_demand import QueueDemand
from services.clock import VirtualClock
from services.config_capacity import CapacityConfig
from services.experts.rank import Rank
from services.experts.sim_engine import SimEngine
from tests.mesh.local_mesh import LocalMesh, local_mesh, said

CONFIG = CapacityConfig.model_validate(
    {
        "pools": {
            "spot": {
                "asg": "s",
                "tier": "spot",
                "min_size": 1,
                "max_size": 4,
                "on_demand_percentage": 0,
                "fallback": "f",
            },
            "f": {"asg": "f", "tier": "fallback", "max_size": 2},
            "vip": {"asg": "v", "tier": "vip", "max_size": 1},
        }
    }
)
TOKENS = 40


class Site:
    """Machines in memory with one engine each, and the controller over them. Is the `MeshDrain`."""

    def __init__(self, mesh: LocalMesh) -> None:
        self.mesh = mesh
        self.nodes, self.clock = MemoryNodes(), VirtualClock()
        self.engines: dict[str, Rank] = {}
        self.leaving: dict[str, asyncio.Task[None]] = {}
        for pool in CONFIG.pools.values():
            self.nodes.add_group(pool.asg, pool.min_size, pool.max_size)
        demand = QueueDemand(CONFIG, lambda: msgspec.to_builtins(mesh.queue.snapshot()), self.clock)
        self.controller = Controller(CONFIG, self.nodes, None, self, self.clock, demand)

    def cordon(self, instance_id: str) -> None:
        """The drain does it."""

    def migrate(self, instance_id: str, within_s: float) -> None:
        """The drain does it."""

    def drain(self, instance_id: str, within_s: float | None, preempted: bool) -> None:
        async def leave(rank: Rank) -> None:
            await rank.drain(5.0 if within_s is None else within_s)
            await rank.stop()

        if instance_id not in self.leaving:
            self.leaving[instance_id] = asyncio.create_task(leave(self.engines[instance_id]))

    def is_empty(self, instance_id: str) -> bool:
        task = self.leaving.get(instance_id)
        return task is not None and task.done()

    def serving(self, asg: str) -> tuple[str, ...]:
        return self.nodes.view((asg,))[asg].serving

    async def round(self, after_s: float = 5.0) -> None:
        """The controller looks, and new machines start their engine, as bootstrap and Serve do."""
        self.clock.advance(after_s)
        self.controller.step()
        assert not self.controller.failures
        for asg in ("s", "f", "v"):
            for instance_id in self.serving(asg):
                if instance_id not in self.engines:
                    rank = Rank(
                        SimEngine.from_config(self.mesh.config.experts), resolve_queue=self.mesh._queue,
                        node=instance_id, pool="vip" if asg == "v" else "default",
                    )  # fmt: skip
                    self.engines[instance_id] = rank
                    await rank.start()
                    self.mesh.ranks.append(rank)

    async def until(self, there: Callable[[], bool], after_s: float = 0.02) -> None:
        """Rounds until it is so. The controller's clock goes by `after_s` a round, however long that takes here."""
        await self.round(after_s)
        while not there():
            await asyncio.sleep(0.02)
            await self.round(after_s)


class Load:
    """Streams that follow one another in a number of lanes; every answer is compared."""

    def __init__(self, mesh: LocalMesh) -> None:
        self.mesh, self.numbers, self.wanted = mesh, count(), {"standard": 0, "vip": 0}
        self.lanes: list[asyncio.Task[None]] = []
        self.answered = 0

    async def lane(self, band: str, place: int) -> None:
        while place < self.wanted[band]:
            number = next(self.numbers)
            body: dict[str, Any] = {
                "model": "sim", "prompt": f"{band} {number}", "max_tokens": TOKENS, "priority_band": band,
            }  # fmt: skip
            answer = await self.mesh.json("/v1/completions", body)
            assert answer["choices"][0]["text"] == said(f"{band} {number}", TOKENS)
            self.answered += 1

    def set(self, band: str, lanes: int) -> None:
        """So many from now on; lanes that are too many end with the answer that they wait for."""
        before, self.wanted[band] = self.wanted[band], lanes
        self.lanes += [asyncio.create_task(self.lane(band, place)) for place in range(before, lanes)]

    async def end(self) -> None:
        self.wanted = dict.fromkeys(self.wanted, 0)
        await asyncio.gather(*self.lanes)


def test_machines_come_with_the_load_and_go_by_drain(tmp_path: Path) -> None:
    async def body() -> None:
        experts = {"sim_step_s": 0.01, "max_num_seqs": 8}
        async with local_mesh(tmp_path, engines=1, experts=experts) as mesh:
            site, load = Site(mesh), Load(mesh)
            await site.round()
            await mesh.ranks[0].drain(0.0)  # the mesh starts with an engine that is on no machine of ours
            assert [len(site.serving(asg)) for asg in ("s", "f", "v")] == [1, 0, 0]
            load.set("standard", 30)  # of eight streams a machine, 0.7 full: more than four machines
            await site.until(lambda: len(site.serving("s")) == 4, after_s=5.0)
            assert site.serving("v") == ()
            load.set("vip", 3)
            await site.until(lambda: len(site.serving("v")) == 1, after_s=5.0)
            (vip,) = site.serving("v")
            await site.until(lambda: len(site.engines[vip].streams) > 0)
            load.set("vip", 0)
            load.set("standard", 4)
            before = load.answered
            await site.until(lambda: load.answered > before + 30)
            assert len(site.serving("s")) == 4 and not site.leaving, "nothing is given up within the hold"
            await site.round(CONFIG.scale.scale_in_hold_s)
            assert len(site.leaving) == 2, "one machine of a pool at a time"
            await site.until(lambda: len(site.serving("s")) == 1 and not site.serving("v"), after_s=5.0)
            assert len(site.leaving) == 4
            before = load.answered
            await site.until(lambda: load.answered > before + 5)
            await load.end()
            assert [len(site.serving(asg)) for asg in ("s", "f", "v")] == [1, 0, 0]

    asyncio.run(body())
