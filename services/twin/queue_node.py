"""The authoritative queue in the twin: the real scheduler between links.

Rules: replaces services/queue/authority.py's sockets and timer, nothing that decides. A killed queue forgets
everything; `incarnation` grows with each start, and grants wait for `grace_s` then, as in the live shell.
"""

from __future__ import annotations

from ..config import QueueConfig
from ..link.messages import (
    Acquire,
    AnyMessage,
    CancelTicket,
    EngineDrain,
    EngineLoad,
    EngineUp,
    Holding,
    Progress,
    Release,
)
from ..queue.events import (
    EngineUnlinked,
    Event,
    FromEngine,
    FromGateway,
    GatewayLost,
    Tick,
    ToEngine,
    ToGateway,
)
from ..queue.scheduler import Scheduler
from .kernel import Process, Simulation
from .network import End, Network
from .oracle import Oracle

TICK_S = 0.05
GRACE_S = 0.3

_GATEWAY = (Acquire, CancelTicket, Release, Progress, Holding)
_ENGINE = (EngineUp, EngineLoad, EngineDrain)


class QueueNode(Process):
    """Handler of the links that gateways and engines open."""

    def __init__(
        self, sim: Simulation, network: Network, name: str, config: QueueConfig, oracle: Oracle
    ) -> None:
        super().__init__(sim, name)
        self.network, self.config, self.oracle = network, config, oracle
        network.add(self)

    def boot(self) -> None:
        self.grace_s = GRACE_S if self.incarnation > 1 else 0.0
        self.grants_from_s = -1.0
        self.scheduler = Scheduler(self.config, incarnation=self.incarnation, grace_s=self.grace_s)
        self.gateways: dict[str, End] = {}
        self.engines: dict[str, End] = {}
        self.after(TICK_S, self._tick)

    def crash(self, restart_s: float, *, silent: bool = False) -> None:
        """kill -9; everything it knew is gone."""
        if not self.alive:
            return
        self.network.killed(self, silent=silent)
        self.kill()
        self.oracle.queue_died()
        self.sim.at(self.sim.now_s + restart_s, None, self.start)

    def decide(self, event: Event) -> None:
        """One event through the core; its effects go out."""
        if self.grants_from_s < 0:
            self.grants_from_s = self.sim.now_s + self.grace_s
        effects = self.scheduler.decide(event, self.sim.now_s)
        for effect in effects:
            if type(effect) is ToGateway:
                self.oracle.queue_said(effect.gateway, effect.message)
                link = self.gateways.get(effect.gateway)
                if link is not None:
                    link.send(effect.message)
            elif type(effect) is ToEngine:
                link = self.engines.get(effect.engine_id)
                if link is not None:
                    link.send(effect.message)
            else:
                self.oracle.fenced(effect.message)
                for link in self.gateways.values():
                    link.send(effect.message)
        self.oracle.decided(self.scheduler, granting=self.sim.now_s >= self.grants_from_s)

    def _tick(self) -> None:
        self.after(TICK_S, self._tick)
        self.decide(Tick())

    def link_up(self, link: End) -> None:
        """Who it is shows in its name, or in its first message."""
        if not link.name.startswith("e"):
            self.gateways[link.name] = link

    def link_message(self, link: End, message: AnyMessage) -> None:
        if isinstance(message, _GATEWAY):
            self.oracle.queue_heard(link.name, message)
            self.decide(FromGateway(link.name, message))
        elif isinstance(message, _ENGINE):
            if type(message) is EngineUp:
                self.engines[message.engine_id] = link
            if self.engines.get(message.engine_id) is link:
                self.decide(FromEngine(message))

    def link_down(self, link: End, why: str) -> None:
        if self.gateways.get(link.name) is link:
            del self.gateways[link.name]
            self.decide(GatewayLost(link.name))
        for engine_id in [name for name, end in self.engines.items() if end is link]:
            del self.engines[engine_id]
            self.decide(EngineUnlinked(engine_id))
