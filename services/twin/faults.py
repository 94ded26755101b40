"""What goes wrong, as a script of values: drawn from a seed, applied at its time.

Rules: a fault is data; `apply` is the only place that knows what it does to a world.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Literal

import msgspec

from ..queue.rollout.operations import Drain, Start, Steer
from ..queue.rollout.plan import Plan
from ..queue.rollout.verdict import Limits

if TYPE_CHECKING:
    from .world import World

PLAN = Plan(
    "v2", "v1", steps=(0.3, 0.6, 1.0), hold_s=0.1, bake_s=0.3, patience_s=1.5, floor_share=0.3,
    limits=Limits(3, ttft_s=8.0),
)  # fmt: skip
"""What operators of these worlds ask for."""

Kind = Literal[
    "engine_kill", "engine_host_loss", "engine_stop", "engine_wedge", "engine_slow", "engine_drain", "partition",
    "one_way", "cut_link", "slow_link", "queue_kill", "queue_stop", "gateway_kill", "gateway_stop", "repeats",
    "cache_kill", "store_out", "journal_kill", "journal_store_out", "client_cut", "release_start", "release_abort",
    "release_promote", "retire",
]  # fmt: skip


class Fault(msgspec.Struct, frozen=True):
    """`subject` and `other` are names of processes; `for_s` is how long it lasts (or until a restart); `factor`
    multiplies the step of a slow engine, adds seconds to a slow link, and is the share of repeated messages."""

    at_s: float
    kind: Kind
    subject: str
    other: str = ""
    for_s: float = 0.5
    factor: float = 1.0


ENGINE_KINDS: tuple[Kind, ...] = (
    "engine_kill", "engine_kill", "engine_host_loss", "engine_stop", "engine_wedge", "engine_slow", "engine_drain",
)  # fmt: skip
NETWORK_KINDS: tuple[Kind, ...] = ("partition", "one_way", "cut_link", "cut_link", "slow_link", "repeats")
CACHE_KINDS: tuple[Kind, ...] = ("cache_kill", "store_out", "cut_link", "engine_kill", "gateway_kill")
CENTRAL_KINDS: tuple[Kind, ...] = ("queue_kill", "queue_kill", "queue_stop", "gateway_kill", "gateway_stop")


JOURNAL_KINDS: tuple[Kind, ...] = (
    "journal_kill", "journal_store_out", "client_cut", "client_cut", "gateway_kill", "gateway_kill", "cut_link",
    "partition",
)  # fmt: skip
RELEASE_KINDS: tuple[Kind, ...] = (
    "release_abort", "release_promote", "retire", "engine_kill", "queue_kill", "queue_kill", "engine_drain",
)  # fmt: skip


class Cast(msgspec.Struct, frozen=True):
    """Who is there. `journal`: answers outlive their gateways, and with `cut_off` one loses sight of it; `releases`:
    engines of two revisions."""

    engines: list[str]
    gateways: list[str]
    queue: str = "queue"
    journal: bool = False
    cut_off: bool = False
    releases: bool = False


def draw(rng: Random, until_s: float, cast: Cast) -> list[Fault]:
    """A script: often one kind of trouble, sometimes everything at once."""
    engines, gateways, queue = cast.engines, cast.gateways, cast.queue
    central = [queue, queue, "cache", *(["journal"] * 3 if cast.journal else [])]
    kinds: tuple[Kind, ...] = rng.choice(
        (
            ENGINE_KINDS,
            ENGINE_KINDS,
            NETWORK_KINDS,
            CENTRAL_KINDS,
            CACHE_KINDS,
            ENGINE_KINDS + NETWORK_KINDS + CENTRAL_KINDS + CACHE_KINDS,
        )
    )
    if cast.journal and rng.random() < 0.6:
        kinds = JOURNAL_KINDS
    script: list[Fault] = []
    if cast.releases:
        if rng.random() < 0.6:
            kinds = RELEASE_KINDS
        strategy = rng.choice(("canary", "canary", "blue_green", "rolling"))
        if rng.random() < 0.85:
            script.append(Fault(rng.uniform(0.0, 0.8), "release_start", queue, strategy))
        if rng.random() < 0.3:  # taken back, and then the queue forgets everything
            back_s = rng.uniform(0.8, 1.2)
            script.append(Fault(back_s, "release_abort", queue))
            script.append(Fault(back_s + 0.2, "queue_kill", queue, "", 0.1))
            kinds = ("engine_drain", "retire", "repeats", "cut_link")
    if cast.cut_off:  # somebody else takes its answers over while it goes on with them, and then it is back
        at_s, for_s = rng.uniform(0.1, 1.0), rng.choice((1.3, 1.8))
        script.append(Fault(at_s, "partition", rng.choice(gateways), "journal", for_s))
        kinds = ("client_cut", "cut_link", "engine_kill", "repeats")
    for _ in range(rng.choice((0, 1, 1, 2, 3, 4, 6))):
        kind = rng.choice(kinds)
        at_s, for_s = rng.uniform(0.0, until_s), rng.choice((0.05, 0.3, 0.8, 1.5, 2.5))
        if kind.startswith("engine"):
            factor = rng.choice((3.0, 10.0, 50.0))
            script.append(Fault(at_s, kind, rng.choice(engines), "", for_s, factor))
        elif kind == "retire":
            script.append(Fault(at_s, kind, rng.choice(engines), "", rng.choice((0.0, 0.5))))
        elif kind in ("cache_kill", "store_out"):
            script.append(Fault(at_s, kind, "cache", "", for_s))
        elif kind.startswith("journal") or kind == "client_cut":
            script.append(Fault(at_s, kind, "journal", "", for_s))
        elif kind.startswith(("queue", "release")):
            script.append(Fault(at_s, kind, queue, "", for_s))
        elif kind.startswith("gateway"):
            script.append(Fault(at_s, kind, rng.choice(gateways), "", for_s))
        elif kind == "repeats":
            script.append(Fault(at_s, kind, "network", "", for_s, rng.choice((0.05, 0.3))))
        else:
            subject = rng.choice(gateways + engines)
            other = rng.choice([*central, *(engines if subject in gateways else gateways)])
            if rng.random() < 0.5:
                subject, other = other, subject
            script.append(Fault(at_s, kind, subject, other, for_s, rng.choice((0.05, 0.4))))
    return sorted(script, key=lambda fault: fault.at_s)


def apply(world: World, fault: Fault) -> None:
    """Do it, and arrange for its end."""
    network, sim = world.network, world.sim
    sim.note("fault", fault)
    end_s = sim.now_s + fault.for_s
    journal = world.journal
    world.oracle.num_faults += 1
    match fault.kind:
        case "engine_kill" | "engine_host_loss":
            world.engine(fault.subject).crash(fault.for_s, silent=fault.kind == "engine_host_loss")
        case "cache_kill":
            world.cache.crash(fault.for_s)
        case "store_out":
            world.cache.store.out = True
            sim.at(end_s, None, world.cache.store.come_back)
        case "journal_kill" if journal is not None:
            world.oracle.journal_losses += 1
            journal.crash(fault.for_s)
        case "journal_store_out" if journal is not None:
            world.oracle.journal_losses += 1
            journal.store.out = True
            sim.at(end_s, None, setattr, journal.store, "out", False)
        case "client_cut" if journal is not None:
            for reader in world.readers:
                if reader.call is not None and sim.rng.random() < 0.5:
                    reader.cut()
        case "journal_kill" | "journal_store_out" | "client_cut":
            pass  # a world without a journal
        case "release_start":
            world.queue.operate(Start(msgspec.structs.replace(PLAN, strategy=fault.other)))
        case "release_abort" | "release_promote":
            world.queue.operate(Steer("abort" if fault.kind == "release_abort" else "promote"))
        case "retire":
            world.queue.operate(Drain(fault.subject, fault.for_s))
        case "queue_kill":
            world.queue.crash(fault.for_s)
        case "gateway_kill":
            world.gateway(fault.subject).crash(fault.for_s)
        case "engine_stop" | "queue_stop" | "gateway_stop":
            process = network.processes[fault.subject]
            if process.alive and not process.stopped:
                world.oracle.gateways_stopped |= fault.kind == "gateway_stop"
                process.stop()
                network.silence(process)
                sim.at(end_s, None, process.resume)
        case "engine_wedge":
            world.engine(fault.subject).wedge()
        case "engine_slow":
            engine = world.engine(fault.subject)
            engine.slow_down(fault.factor)
            sim.at(end_s, None, engine.slow_down, 1.0)
        case "engine_drain":
            world.engine(fault.subject).drain(fault.for_s, 0.5)
        case "partition" | "one_way":
            network.block(fault.subject, fault.other)
            sim.at(end_s, None, network.heal, fault.subject, fault.other)
            if fault.kind == "partition":
                network.block(fault.other, fault.subject)
                sim.at(end_s, None, network.heal, fault.other, fault.subject)
        case "cut_link":
            network.cut(fault.subject, fault.other)
        case "slow_link":
            network.slow[fault.subject] = fault.factor
            sim.at(end_s, None, network.speed_up, fault.subject)
        case "repeats":
            network.repeat_share = fault.factor
            sim.at(end_s, None, network.stop_repeating)
