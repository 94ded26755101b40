"""Earliest deadline first: for a single tenant, or tenants that trust one another's deadlines."""

from __future__ import annotations

from ..entry import Entry
from . import fifo


class Policy(fifo.Policy):
    """FIFO with another key."""

    def key(self, entry: Entry) -> float:
        return entry.deadline_s
