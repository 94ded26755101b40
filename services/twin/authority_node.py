"""A process that gateways and engines dial: the queue, the response cache, the journal, each with its real authority.

Rules: replaces the authority's listening socket. A subclass makes the authority in `boot`; a killed process forgets
everything that is not in a store outside it.
"""

from __future__ import annotations

from typing import Any, Generic, Protocol, TypeVar

from ..link.messages import AnyMessage
from .kernel import Process, Simulation
from .network import End, Network


class Authority(Protocol):
    """What answers on links."""

    def link_up(self, link: Any) -> None: ...
    def link_message(self, link: Any, message: AnyMessage) -> None: ...
    def link_down(self, link: Any, why: str) -> None: ...


A = TypeVar("A", bound=Authority)


class AuthorityNode(Process, Generic[A]):
    """Handler of the links that others open. Earlier authorities stay in `graves`: collecting them would run their
    tasks' `finally` in the next incarnation."""

    authority: A

    def __init__(self, sim: Simulation, network: Network, name: str) -> None:
        super().__init__(sim, name)
        self.network = network
        self.graves: list[Any] = []
        network.add(self)

    def crash(self, restart_s: float, *, silent: bool = False) -> None:
        """kill -9 (or its host's end, `silent`); another process takes its name later."""
        if not self.alive:
            return
        self.network.killed(self, silent=silent)
        self.graves.append(self.authority)
        self.kill()
        self.died()
        self.sim.at(self.sim.now_s + restart_s, None, self.start)

    def died(self) -> None:
        """It was killed just now."""

    def link_up(self, link: End) -> None:
        self.authority.link_up(link)

    def link_message(self, link: End, message: AnyMessage) -> None:
        self.authority.link_message(link, message)

    def link_down(self, link: End, why: str) -> None:
        self.authority.link_down(link, why)
