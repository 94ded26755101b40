"""Whole machines die, are drained, or lose their network, while streams of every class are on the line.

    python -m load_tests.survival nodes [--only kill,power,…] [--lanes 20] [--tokens 200]     (as root)

One head (gateways, queue, cache: in this host's network) and four machines, network namespaces with a Ray node each
(netns_machines.py); three simulated engines are spread over them. Before each scene there is one machine more than
engines, so that a successor has a place. Every token is compared; a stream that is told an error, or is cut, or is
wrong, has failed.

    kill       every process of the machine at once, kill -9: its connections are reset
    power      the same, and nobody is told: the cable is pulled first
    drain_30, drain_10, drain_0
               `ray drain-node` with so many seconds, then as `power`, empty or not
    cable      the cable is pulled for five seconds, and the same engine comes back
    one_way    for five seconds what the machine says is lost, what is said to it arrives
    lost       the cable is pulled until Ray has given the machine up and another engine serves; then plugged in: what
               lives there still must not be heard

Pauses are those of the streams that the victim may have had: of each, the gap around the moment of its loss; shown is
the longest third of them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.cluster_utils import Cluster

from graphs.profiles import SimOptions, sim_config
from graphs.topology import mesh
from services.capacity.deployment import INSTANCE_LABEL
from services.capacity.ray_drain import RayDrain
from services.config import PlacementConfig
from services.gateway import json_key_store
from services.gateway.identity import Permission
from services.ports import free_port
from tests.cluster.stack import wait_for

from .chaos import REVISION, pauses, share
from .netns_machines import Machine, Network
from .streams import KINDS, Stream

KEY = "em-a-key-of-the-machines-scenes"
HEAD, SPOT = {"expertmesh.io/tier": "head"}, {"expertmesh.io/tier": "spot"}
ENGINES = 3
ENGINE = "ServeReplica:default:ExpertShards"
AWAY_S, SETTLE_S, BACK_WITHIN_S = 5.0, 2.0, 120.0
REPLACED_S = 2.0  # so long another engine has served before the lost machine is heard again


class Site:
    """The mesh on its machines."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.network, self._count = folder, Network(), 0
        try:
            self._begin()
        except BaseException:
            self.end()
            raise

    def _begin(self) -> None:
        head: dict[str, Any] = {
            "num_cpus": 2, "object_store_memory": 80 * 2**20, "include_dashboard": False, "labels": HEAD,
            "node_ip_address": self.network.head,
        }  # fmt: skip
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.gcs = str(self.cluster.address)
        told = signal.getsignal(signal.SIGTERM)
        ray.init(address=self.gcs, namespace="serve", log_to_driver=False)
        signal.signal(signal.SIGTERM, told)  # Ray's own dies at once, and leaves the machines behind
        for _ in range(ENGINES):
            self.launch()
        keys_file = self.folder / "keys.json"
        rights = (Permission.GENERATE, Permission.METRICS, Permission.OPERATE)
        json_key_store.add(keys_file, KEY, key_id="site", tenant="site", permissions=rights)
        options = SimOptions(
            http_port=free_port(), grpc_port=free_port(), redis_url="", keys_file=str(keys_file), engines=ENGINES,
            gateways=2, request_log="",
        )  # fmt: skip
        config, here = sim_config(options), {"listen_host": self.network.head}
        config = config.model_copy(
            update={
                "placement": PlacementConfig(gateway=HEAD, control=HEAD, experts=SPOT),
                "queue": config.queue.model_copy(update=here),
                "cache": config.cache.model_copy(update=here),
                "experts": config.experts.model_copy(update={"listen_host": ""}),
            }
        )
        serve.start(proxy_location="Disabled")
        serve.run(mesh(config), name="default")
        self.port = options.http_port
        wait_for(lambda: len(self.serving()) == ENGINES, "all engines", BACK_WITHIN_S)

    def launch(self) -> None:
        """One machine more; returns when Ray knows it."""
        self._count += 1
        name = f"i-{self._count:017x}"
        labels = {**SPOT, INSTANCE_LABEL: name}
        self.network.launch(self.gcs, name, labels, self.folder / f"{name}.log")
        wait_for(lambda: self.node_id(name) != "", f"machine {name}", BACK_WITHIN_S)

    def node_id(self, name: str) -> str:
        """Ray's name of a living machine; "" when it has none."""
        return next(
            (n["NodeID"] for n in ray.nodes() if n["Alive"] and n["Labels"].get(INSTANCE_LABEL) == name), ""
        )

    def victim(self) -> Machine:
        """The machine with most engines."""
        return max(self.network.machines.values(), key=lambda machine: len(machine.pids(ENGINE)))

    def serving(self) -> frozenset[str]:
        """The workers that the queue may use."""
        told = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/admin/queue",
            json.dumps({"type": "status"}).encode(),
            {"authorization": f"Bearer {KEY}", "content-type": "application/json"},
        )
        try:
            with urllib.request.urlopen(told, timeout=10) as answer:
                revisions = json.loads(answer.read()).get("sim", {"revisions": {}})["revisions"]
        except (urllib.error.URLError, OSError):
            return frozenset()
        workers = revisions.get(REVISION, {"workers": {}})["workers"]
        return frozenset(name for name, worker in workers.items() if worker["serves"])

    def bury(self, machine: Machine) -> None:
        """What is left of a dead machine."""
        machine.kill()
        machine.remove()
        del self.network.machines[machine.name]

    def end(self) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # `timeout` says it twice
        try:
            if ray.is_initialized():
                serve.shutdown()
                ray.shutdown()
            if hasattr(self, "cluster"):
                self.cluster.shutdown()
        finally:
            self.network.end()


Scene = Callable[[Site, Machine], Awaitable[float]]
"""Does it to this machine and returns the moment of the loss; what follows waits until all engines serve again."""


async def kill(site: Site, machine: Machine) -> float:
    at_s = time.monotonic()
    await asyncio.to_thread(machine.kill)
    return at_s


async def power(site: Site, machine: Machine) -> float:
    at_s = time.monotonic()
    machine.pull_cable()
    await asyncio.to_thread(machine.kill)
    return at_s


def drain(notice_s: float) -> Scene:
    async def drained(site: Site, machine: Machine) -> float:
        node, words = site.node_id(machine.name), RayDrain(site.gcs, {})
        until_s = time.monotonic() + notice_s
        telling = asyncio.create_task(asyncio.to_thread(words.drain, node, notice_s, "the machine goes"))
        while time.monotonic() < until_s:
            await asyncio.sleep(0.1)
        at_s = await power(site, machine)
        await asyncio.wait((telling,))  # said to a dead machine: refused, perhaps
        telling.exception()
        return at_s

    return drained


async def cable(site: Site, machine: Machine) -> float:
    at_s = time.monotonic()
    machine.pull_cable()
    await asyncio.sleep(AWAY_S)
    machine.plug_in()
    return at_s


async def one_way(site: Site, machine: Machine) -> float:
    at_s = time.monotonic()
    machine.lose_what_it_says()
    await asyncio.sleep(AWAY_S)
    machine.say_again()
    return at_s


async def lost(site: Site, machine: Machine) -> float:
    at_s = time.monotonic()
    machine.pull_cable()
    async with asyncio.timeout(BACK_WITHIN_S):
        while await asyncio.to_thread(site.node_id, machine.name):  # Ray has no events
            await asyncio.sleep(0.2)
        print(f"    Ray gave the machine up after {time.monotonic() - at_s:.0f} s", flush=True)
        while len(await asyncio.to_thread(site.serving)) < ENGINES:
            await asyncio.sleep(0.2)
    await asyncio.sleep(REPLACED_S)
    lives = len(machine.pids(ENGINE))
    machine.plug_in()
    async with asyncio.timeout(BACK_WITHIN_S):
        while machine.pids(ENGINE):
            await asyncio.sleep(0.2)
    print(f"    {lives} of its engines lived when it was plugged in, and ended", flush=True)
    return at_s


SCENES: dict[str, Scene] = {
    "kill": kill, "power": power, "drain_30": drain(30.0), "drain_10": drain(10.0), "drain_0": drain(0.0),
    "cable": cable, "one_way": one_way, "lost": lost,
}  # fmt: skip
STAYS = {"cable", "one_way"}
"""After these the machine serves on."""


async def until_all_serve(site: Site, before: frozenset[str], gone: int) -> None:
    """So many of those before are gone, and have successors."""
    async with asyncio.timeout(BACK_WITHIN_S):
        while len(now := await asyncio.to_thread(site.serving)) != ENGINES or len(before - now) < gone:
            await asyncio.sleep(0.2)


async def play(site: Site, name: str, lanes: int, tokens: int) -> int:
    """One scene beside its streams; prints its line and returns how many failed."""
    while len(site.network.machines) < ENGINES + 1:
        await asyncio.to_thread(site.launch)
    victim, streams = site.victim(), list[Stream]()
    engines, salt = len(victim.pids(ENGINE)), f"{name} {time.monotonic_ns()} "
    before, back_s = site.serving(), 0.0

    async def happen() -> float:
        nonlocal back_s
        await asyncio.sleep(SETTLE_S + tokens * 0.02 / 2)  # everybody is in the middle of something
        at_s = await SCENES[name](site, victim)
        await until_all_serve(site, before, 0 if name in STAYS else engines)
        back_s = time.monotonic() - at_s
        return at_s

    async def lane(number: int) -> None:
        await asyncio.sleep(number * SETTLE_S / lanes)
        while not happening.done():
            stream = Stream(KINDS[len(streams) % len(KINDS)], len(streams), tokens, salt=salt)
            streams.append(stream)
            await stream.run(site.port, KEY)

    happening = asyncio.create_task(happen())
    await asyncio.gather(happening, *map(lane, range(lanes)))
    if name not in STAYS:
        site.bury(victim)
    bad = [one for one in streams if one.error]
    seen = pauses(streams, [happening.result()]) or [0.0]
    gaps = [one.longest_gap_s for one in streams]
    print(
        f"{name}: a machine with {engines} of {ENGINES} engines, {len(streams)} streams, failed or wrong {len(bad)}, "
        f"pauses p50 {share(seen, 0.5) * 1e3:.0f} longest {seen[-1] * 1e3:.0f} ms, longest gap of all "
        f"{max(gaps) * 1e3:.0f} ms, all engines serve after {back_s:.0f} s",
        flush=True,
    )
    for one in bad[:5]:
        print(f"    {one.kind} {one.number}: {one.error}")
    return len(bad)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        "nodes", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(SCENES))
    parser.add_argument("--lanes", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=200)
    told = parser.parse_args(arguments)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        site = Site(Path(folder))
        try:
            for name in told.only.split(","):
                failed += asyncio.run(play(site, name, told.lanes, told.tokens))
        finally:
            site.end()
    return 1 if failed else 0
