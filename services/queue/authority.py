"""The queue without Ray: links to gateways and engines around one scheduler per model.

Rules: a shell. It maps links to names, reads the clock, ticks, and runs effects; what anything means is decided in
scheduler.py, and which scheduler a message is for in lanes.py. All methods on one event loop; one message is one
decision, so order on a link is order in the queue.

Soft state: after a crash the next authority knows nothing, engines say EngineUp again, gateways say what they hold
and what they wait for, and for `restart_grace_s` nothing is granted, so that the holdings come first.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import secrets
import socket

from ..clock import Clock, SystemClock
from ..config import QueueConfig
from ..link.asyncio_link import Link, LinkServer
from ..link.messages import (
    Acquire,
    AnyMessage,
    CancelTicket,
    EngineDrain,
    EngineLoad,
    EngineUp,
    Holding,
    Progress,
    QueueLimits,
    Refuse,
    Release,
    Retire,
    Revisions,
)
from ..outcome import Reason
from .events import (
    Effect,
    EngineUnlinked,
    Event,
    FromEngine,
    FromGateway,
    GatewayLost,
    SetLimits,
    Tick,
    ToAllGateways,
    ToGateway,
)
from .lanes import Key, Lanes
from .limits import ChangeLimits, LimitBook
from .rollout.desk import Desk
from .rollout.operations import Operations, Wish
from .scheduler import Scheduler
from .stats import QueueSnapshot

log = logging.getLogger(__name__)

TICK_S = 0.05


class QueueAuthority:
    """See the module. `key` opens a link; `address` is known after `start`."""

    def __init__(self, config: QueueConfig, clock: Clock | None = None, key: bytes | None = None) -> None:
        self.config = config
        self.key = key if key is not None else secrets.token_bytes(32)
        self._clock = clock or SystemClock()
        # Epochs and lease ids of this start are above those of every earlier one. Only their order matters.
        self._incarnation = int(self._clock.wall_s() * 1000)
        self._started_s = self._clock.now_s()
        self._links: set[Link] = set()
        self._lanes = Lanes(config, self._incarnation, self._started_s + config.restart_grace_s)
        self._limits = LimitBook(config, self._take_limits)
        self._looked_s = self._started_s
        self._gateways: dict[str, Link] = {}
        self._engines: dict[str, Link] = {}
        self._lane_of: dict[str, Key] = {}
        self._engine_links: dict[Link, set[str]] = {}
        self.server = LinkServer(self, self.key)
        self._timer: asyncio.TimerHandle | None = None
        self.ticked_s = self._started_s
        self.decisions = 0

    @property
    def address(self) -> str:
        return self.server.address

    async def start(self, host: str = "", port: int = 0, sock: socket.socket | None = None) -> str:
        """Listen (on `listen_host`, or on a socket that is bound) and tick; returns the address. Raises OSError."""
        address = await self.server.start(host or self.config.listen_host, port, sock)
        self._tick()
        gc.collect()
        gc.freeze()  # what is loaded by now lives as long as we do; collections need not look at it again
        return address

    def close(self) -> None:
        """Stop listening and cut all links."""
        self.server.close()
        if self._timer is not None:
            self._timer.cancel()
        for link in list(self._links):
            link.close("the queue stops")

    def silent_s(self) -> float:
        """Seconds since the last tick: more than a few and the event loop stands still."""
        return self._clock.now_s() - self.ticked_s

    def snapshot(self) -> tuple[QueueSnapshot, ...]:
        """One picture per model, per revision where it has several; for metrics and `expertmesh queue`."""
        return self._lanes.snapshots(self._clock.now_s())

    def operate(self, wish: Wish) -> dict[str, object]:
        """What an operator asks of limits, releases and workers. Raises ConfigError; then nothing changed."""
        if isinstance(wish, ChangeLimits):
            if self._limits.change(wish, self._clock.wall_s()):
                for link in self._links - self._engine_links.keys():
                    link.send(self._limits.told)
            return self._limits.shown()
        answer = Operations(self._lanes, self._retire).run(wish, self._clock.now_s())
        self._look()
        return answer

    def _take_limits(self, config: QueueConfig) -> None:
        for scheduler in self._lanes.all:
            self._run(scheduler.decide(SetLimits(config), self._clock.now_s()))
        self.config = self._lanes.config = config

    # links ---------------------------------------------------------------------------------------------

    def link_up(self, link: Link) -> None:
        """The first message says whether it is a gateway or an engine."""
        self._links.add(link)
        if self._limits.told.version:
            link.send(self._limits.told)

    def link_message(self, link: Link, message: AnyMessage) -> None:
        now_s = self._clock.now_s()
        if isinstance(message, Acquire | Holding):
            self._hear_gateway(link, now_s)
            if isinstance(message, Acquire):
                scheduler = self._lanes.for_acquire(message, now_s)
            else:
                scheduler = self._lanes.for_holding(message, now_s)
            if scheduler is not None:
                self._decide(scheduler, FromGateway(link.name, message), now_s)
            elif isinstance(message, Acquire):
                link.send(Refuse(message.ticket, Reason.MODEL_NOT_FOUND, "there is no such model"))
        elif isinstance(message, Release | Progress | CancelTicket):
            self._hear_gateway(link, now_s)
            event = FromGateway(link.name, message)
            for scheduler in self._lanes.all:  # tickets are unique per gateway: only one of them knows it
                self._decide(scheduler, event, now_s)
        elif isinstance(message, QueueLimits):
            self._limits.hear(message)
        elif isinstance(message, Revisions):
            self._hear_revisions(link, message, now_s)
        elif isinstance(message, EngineUp):
            self._meet_engine(link, message, now_s)
        elif isinstance(message, EngineLoad | EngineDrain):
            self._hear_engine(link, message, now_s)
        else:
            link.close(f"a {type(message).__name__} is nothing for the queue")

    def link_down(self, link: Link, why: str) -> None:
        self._links.discard(link)
        now_s = self._clock.now_s()
        if self._gateways.get(link.name) is link:
            log.warning("gateway %s is gone: %s", link.name, why)
            del self._gateways[link.name]
            for scheduler in self._lanes.all:
                self._decide(scheduler, GatewayLost(link.name), now_s)
        for engine_id in self._engine_links.pop(link, ()):
            if self._engines.get(engine_id) is link:
                log.warning("engine %s is not linked: %s", engine_id, why)
                del self._engines[engine_id]
                self._decide(self._lanes.get(self._lane_of[engine_id]), EngineUnlinked(engine_id), now_s)
                self._look()

    def _hear_gateway(self, link: Link, now_s: float) -> None:
        before = self._gateways.get(link.name)
        if before is link:
            return
        self._gateways[link.name] = link
        if before is not None:  # its old connection is half dead: it will tell us everything again
            before.close("the same gateway came back")
            for scheduler in self._lanes.all:
                self._decide(scheduler, GatewayLost(link.name), now_s)
        for desk in self._lanes.desks.values():
            if desk.table.shares:
                link.send(desk.told())

    def _hear_revisions(self, link: Link, message: Revisions, now_s: float) -> None:
        """What an earlier queue decided, from a gateway that was there."""
        if self._lanes.make(message.model, message.shares[0][0] if message.shares else "", now_s) is not None:
            desk = self._lanes.desks[message.model]
            if desk.adopt(message, now_s):
                self._announce(desk)
            self._move_strays(now_s)
        self._hear_gateway(link, now_s)

    def _meet_engine(self, link: Link, message: EngineUp, now_s: float) -> None:
        key = message.model, message.revision
        scheduler = self._lanes.meet(message, now_s)
        if scheduler is None:
            link.close("too many models")
            return
        before = self._engines.get(message.engine_id)
        if before is not None and before is not link:
            self._engine_links.get(before, set()).discard(message.engine_id)
        old_key = self._lane_of.get(message.engine_id, key)
        if old_key != key and old_key in self._lanes:  # the same name serves something else now
            self._decide(self._lanes.get(old_key), EngineUnlinked(message.engine_id), now_s)
        self._engines[message.engine_id] = link
        self._lane_of[message.engine_id] = key
        self._engine_links.setdefault(link, set()).add(message.engine_id)
        self._decide(scheduler, FromEngine(message), now_s)
        self._look()

    def _hear_engine(self, link: Link, message: EngineLoad | EngineDrain, now_s: float) -> None:
        if self._engines.get(message.engine_id) is not link:
            return  # not its own voice
        scheduler = self._lanes.get(self._lane_of[message.engine_id])
        if message.engine_id not in scheduler.state.fleet.engines:
            link.close("fenced: register again")
            return
        self._decide(scheduler, FromEngine(message), now_s)

    # decisions -----------------------------------------------------------------------------------------

    def _decide(self, scheduler: Scheduler, event: Event, now_s: float) -> None:
        self.decisions += 1
        effects = scheduler.decide(event, now_s)
        if effects:
            self._run(effects)

    def _run(self, effects: list[Effect]) -> None:
        gateways = self._gateways
        for effect in effects:
            if isinstance(effect, ToGateway):
                if (link := gateways.get(effect.gateway)) is not None:
                    link.send(effect.message)
            elif isinstance(effect, ToAllGateways):
                log.warning("fencing %s up to epoch %d", effect.message.engine_id, effect.message.epoch)
                for link in gateways.values():
                    link.send(effect.message)
            else:
                if (link := self._engines.get(effect.engine_id)) is not None:
                    link.send(effect.message)

    def _tick(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)
        now_s = self.ticked_s = self._clock.now_s()
        for scheduler in self._lanes.all:
            self._decide(scheduler, Tick(), now_s)
        if now_s - self._looked_s >= self.config.rollout.look_every_s:
            self._look()
            if name := self._lanes.to_renew(now_s):
                log.warning("%s is old: it is renewed", name)
                self._retire(name, self.config.rollout.recycle_within_s)

    # revisions -------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Show every desk what there is, tell gateways what changed, and move what waits in the wrong place."""
        now_s = self._looked_s = self._clock.now_s()
        for model, desk in self._lanes.desks.items():
            known = bool(desk.table.shares)
            if known and now_s < self._started_s + self.config.restart_grace_s:
                continue  # not all engines have said that they are there
            if desk.look(self._lanes.seen(model, now_s), now_s):
                self._announce(desk)
        self._move_strays(now_s)
        self._run(self._lanes.give_up(now_s))
        served = {self._lane_of[engine_id][0] for engine_id in self._engines}
        for told in self._lanes.forget(served, now_s):
            for link in self._gateways.values():
                link.send(told)

    def _move_strays(self, now_s: float) -> None:
        for scheduler, gateway, acquire in self._lanes.strays(now_s):
            self._decide(scheduler, FromGateway(gateway, acquire), now_s)

    def _announce(self, desk: Desk) -> None:
        if desk.release is not None:
            log.warning("release of %s: %s (%s)", desk.release.plan.new, desk.release.phase, desk.release.why)
        for link in self._gateways.values():
            link.send(desk.told())

    def _retire(self, name: str, within_s: float) -> list[str]:
        """Ask a group, or an engine alone, to drain and end; returns the engines asked. Unknown names have none."""
        now_s = self._clock.now_s()
        ids, _ = self._lanes.units(now_s).get(name, ([], None))
        for engine_id in ids:
            link = self._engines.get(engine_id)
            if link is not None:
                link.send(Retire(engine_id, within_s))
            drain = FromEngine(EngineDrain(engine_id, within_s))
            self._decide(self._lanes.get(self._lane_of[engine_id]), drain, now_s)
        return ids
