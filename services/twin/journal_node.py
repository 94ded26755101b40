"""The journal's process in the twin: the real authority and book over a store that outlives it, as Redis does."""

from __future__ import annotations

from ..config import JournalConfig
from ..journal.authority import JournalAuthority
from ..journal.memory_store import MemoryJournalStore
from ..link.messages import AnyMessage
from .kernel import Process, Simulation
from .network import End, Network


class JournalNode(Process):
    """Handler of the links that gateways open. `store` may be `out`."""

    def __init__(self, sim: Simulation, network: Network, name: str, config: JournalConfig) -> None:
        super().__init__(sim, name)
        self.network, self.config = network, config
        self.store = MemoryJournalStore(self)
        self._graves: list[object] = []
        network.add(self)

    def boot(self) -> None:
        self.authority = JournalAuthority(self.config, self.store, self)
        self.authority.begin()
        self._graves.append(self.authority)

    def crash(self, restart_s: float, *, silent: bool = False) -> None:
        """kill -9; what the store had not got yet, owners tell the next one."""
        if not self.alive:
            return
        self.network.killed(self, silent=silent)
        self.kill()
        self.sim.at(self.sim.now_s + restart_s, None, self.start)

    def link_up(self, link: End) -> None:
        self.authority.link_up(link)  # type: ignore[arg-type]

    def link_message(self, link: End, message: AnyMessage) -> None:
        self.authority.link_message(link, message)  # type: ignore[arg-type]

    def link_down(self, link: End, why: str) -> None:
        self.authority.link_down(link, why)  # type: ignore[arg-type]
