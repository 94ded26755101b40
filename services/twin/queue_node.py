"""The queue's process in the twin: the real authority and scheduler, with the oracle looking on.

Rules: replaces the authority's listening socket, nothing else. A killed queue forgets everything.
"""

from __future__ import annotations

from ..config import QueueConfig
from ..link.messages import AnyMessage, Release
from ..queue.authority import QueueAuthority
from ..queue.events import FromGateway, GatewayLost, ToAllGateways, ToGateway
from ..queue.scheduler import Scheduler
from .kernel import Process, Simulation
from .network import End, Network
from .oracle import Oracle


class WatchedAuthority(QueueAuthority):
    """Tells the oracle what the scheduler hears and decides."""

    def __init__(self, config: QueueConfig, node: QueueNode) -> None:
        super().__init__(config, clock=node, key=b"twin")
        self._node = node

    def begin(self) -> None:
        """What `start` does apart from listening."""
        self._tick()

    @property
    def schedulers(self) -> list[Scheduler]:
        return self._lanes.all

    def _decide(self, scheduler: Scheduler, event: object, now_s: float) -> None:
        oracle = self._node.oracle
        if type(event) is FromGateway:
            oracle.queue_heard(event.gateway, event.message)
        elif type(event) is GatewayLost:
            oracle.gateway_unlinked(event.gateway)
        effects = scheduler.decide(event, now_s)  # type: ignore[arg-type]  # as in the authority
        for effect in effects:
            if type(effect) is ToGateway:
                oracle.queue_said(effect.gateway, effect.message)
            elif type(effect) is ToAllGateways:
                oracle.fenced(effect.message)
        self._run(effects)
        if type(event) is FromGateway and type(event.message) is Release:
            oracle.queue_took_back(scheduler, event.gateway, event.message)
        granting = now_s > self._started_s + self.config.restart_grace_s + 1e-6
        oracle.decided(scheduler, granting=granting)


class QueueNode(Process):
    """Handler of the links that gateways and engines open."""

    def __init__(
        self, sim: Simulation, network: Network, name: str, config: QueueConfig, oracle: Oracle
    ) -> None:
        super().__init__(sim, name)
        self.network, self.config, self.oracle = network, config, oracle
        network.add(self)

    def boot(self) -> None:
        self.authority = WatchedAuthority(self.config, self)
        self.authority.begin()

    def crash(self, restart_s: float, *, silent: bool = False) -> None:
        """kill -9; everything it knew is gone."""
        if not self.alive:
            return
        self.network.killed(self, silent=silent)
        self.kill()
        self.oracle.queue_died()
        self.sim.at(self.sim.now_s + restart_s, None, self.start)

    def link_up(self, link: End) -> None:
        self.authority.link_up(link)  # type: ignore[arg-type]

    def link_message(self, link: End, message: AnyMessage) -> None:
        self.authority.link_message(link, message)  # type: ignore[arg-type]

    def link_down(self, link: End, why: str) -> None:
        self.authority.link_down(link, why)  # type: ignore[arg-type]
