"""The queue's process in the twin: the real authority and scheduler, with the oracle looking on.

Rules: replaces the authority's listening socket, nothing else. A killed queue forgets everything.
"""

from __future__ import annotations

from ..config import QueueConfig
from ..errors import ConfigError
from ..link.messages import Grant, Release
from ..queue.authority import QueueAuthority
from ..queue.events import FromGateway, GatewayLost, ToAllGateways, ToGateway
from ..queue.rollout.desk import Desk
from ..queue.rollout.operations import Wish
from ..queue.scheduler import Scheduler
from .authority_node import AuthorityNode
from .kernel import Simulation
from .network import Network
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
                self._check_grant(scheduler, effect)
            elif type(effect) is ToAllGateways:
                oracle.fenced(effect.message)
        self._run(effects)
        if type(event) is FromGateway and type(event.message) is Release:
            oracle.queue_took_back(scheduler, event.gateway, event.message)
        granting = now_s > self._started_s + self.config.restart_grace_s + 1e-6
        oracle.decided(scheduler, granting=granting)

    # revisions -------------------------------------------------------------------------------------------

    def _announce(self, desk: Desk) -> None:
        super()._announce(desk)
        self._node.oracle.announced(desk.release, everywhere=len(self._gateways) == self._node.num_gateways)

    def _check_grant(self, scheduler: Scheduler, effect: ToGateway) -> None:
        grant = effect.message
        if type(grant) is not Grant:
            return
        entry = scheduler.state.gateways.get(effect.gateway, {}).get(grant.ticket)
        for desk in self._lanes.desks.values():
            if entry is not None and not entry.pinned and desk.table.shares:
                self._node.oracle.granted_fresh(grant, desk.table, desk.release)

    def _retire(self, name: str, within_s: float) -> list[str]:
        units = [unit for _, unit in self._lanes.units(self._node.now_s()).values()]
        if not self._node.operating:
            self._node.oracle.renewed(name, units)
        return super()._retire(name, within_s)


class QueueNode(AuthorityNode[WatchedAuthority]):
    """A killed queue forgets everything."""

    def __init__(
        self, sim: Simulation, network: Network, name: str, config: QueueConfig, oracle: Oracle
    ) -> None:
        super().__init__(sim, network, name)
        self.config, self.oracle = config, oracle
        self.operating = False
        self.num_gateways = 0

    def boot(self) -> None:
        self.authority = WatchedAuthority(self.config, self)
        self.authority.begin()

    def died(self) -> None:
        self.oracle.queue_died()

    def operate(self, wish: Wish) -> None:
        """What an operator asks for; a queue that is down, or that finds it makes no sense now, refuses."""
        if not self.alive or self.stopped:
            return
        self.operating = True
        try:
            self.authority.operate(wish)
        except ConfigError as error:
            self.sim.note(self.name, f"refuses: {error}")
        finally:
            self.operating = False
