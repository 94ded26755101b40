"""The journal's process in the twin: the real authority and book over a store that outlives it, as Redis does."""

from __future__ import annotations

from ..config import JournalConfig
from ..journal.authority import JournalAuthority
from ..journal.memory_store import MemoryJournalStore
from .authority_node import AuthorityNode
from .kernel import Simulation
from .network import Network


class JournalNode(AuthorityNode[JournalAuthority]):
    """What the store had not got yet when it is killed, owners tell the next one. `store` may be `out`."""

    def __init__(self, sim: Simulation, network: Network, name: str, config: JournalConfig) -> None:
        super().__init__(sim, network, name)
        self.config = config
        self.store = MemoryJournalStore(self)

    def boot(self) -> None:
        self.authority = JournalAuthority(self.config, self.store, self)
        self.authority.begin()

    @property
    def num_ended(self) -> int:
        """Answers that ended, over all its lives."""
        return sum(one.stats().ended for one in (*self.graves, self.authority))
