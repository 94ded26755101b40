"""Weighted token fairness between tenants (fairness.py), inside a tenant by deadline, then arrival.

Each waiting tenant has one node in a heap of counters. Counters only grow, so a node's key is a lower bound: it is
corrected when it surfaces, and a charge (ten per second and running stream) touches no heap.
"""

from __future__ import annotations

from heapq import heappop, heappush, heapreplace

from ..entry import Entry
from ..fairness import Flow
from .heap import EntryHeap

MAX_LINES = 10_000
SHED_RUN = 64


class _TenantLine(Flow):
    __slots__ = ("heap", "queued")

    def __init__(self, tenant: str, level: int | None) -> None:
        super().__init__(tenant)
        self.heap = EntryHeap(level)
        self.queued = False  # has a node in the heap of counters


class Policy:
    """See `Ordering`."""

    def __init__(self, level: int | None) -> None:
        self._level = level
        self._lines: dict[str, _TenantLine] = {}
        self._nodes: list[tuple[float, int, _TenantLine]] = []
        self._live = 0
        self._order = 0
        self._floor = 0.0  # counter of the tenant that was least when the lane last ran empty
        self._max_lines = MAX_LINES
        self._shed_from: _TenantLine | None = None
        self._shed_left = 0

    def add(self, entry: Entry, returning: bool = False) -> None:
        line = self._lines.get(entry.tenant) or self._new_line(entry.tenant)
        line.weight = entry.weight
        heap = line.heap
        if heap.live == 0 and not returning:
            line.lift(self._least_counter())
        if not line.queued:
            line.queued = True
            self._order += 1
            heappush(self._nodes, (line.counter, self._order, line))
        heap.push(entry.deadline_s, entry)
        self._live += 1

    def peek(self) -> Entry | None:
        nodes = self._nodes
        while nodes:
            key, order, line = nodes[0]
            if not line.heap.live:
                heappop(nodes)
                line.queued = False
                self._floor = max(self._floor, line.counter)
                continue
            counter = line.counter
            if counter <= key:
                return line.heap.peek()
            heapreplace(nodes, (counter, order, line))
        return None

    def _least_counter(self) -> float:
        return self._nodes[0][0] if self.peek() is not None else self._floor

    def discard(self, entry: Entry) -> None:
        self._lines[entry.tenant].heap.forget()
        self._live -= 1

    def charge(self, tenant: str, cost: float) -> None:
        line = self._lines.get(tenant) or self._new_line(tenant)
        line.counter += cost / line.weight

    def _new_line(self, tenant: str) -> _TenantLine:
        if len(self._lines) >= self._max_lines:
            self._forget_idle()
        line = self._lines[tenant] = _TenantLine(tenant, self._level)
        return line

    def _forget_idle(self) -> None:
        """Drop tenants that wait for nothing. They lose at most what they were ahead: on return they are lifted to
        the least counter anyway, or to the floor kept here."""
        for line in [line for line in self._lines.values() if not line.queued]:
            del self._lines[line.tenant]
        self._max_lines = max(MAX_LINES, 2 * len(self._lines))

    def head_of(self, tenant: str) -> Entry | None:
        line = self._lines.get(tenant)
        return line.heap.peek() if line is not None else None

    def counter_of(self, tenant: str) -> float:
        line = self._lines.get(tenant)
        return line.counter if line is not None else 0.0

    def shed(self) -> Entry | None:
        """From the tenant with the longest line, looked up once per SHED_RUN calls."""
        if self._shed_left <= 0 or self._shed_from is None or self._shed_from.heap.live == 0:
            self._shed_from = max(self._lines.values(), key=lambda line: line.heap.live, default=None)
            self._shed_left = SHED_RUN
        self._shed_left -= 1
        return self._shed_from.heap.late() if self._shed_from is not None else None

    def __len__(self) -> int:
        return self._live

    def counters(self) -> dict[str, float]:
        """Weighted service per tenant, for people and tests."""
        return {line.tenant: line.counter for line in self._lines.values()}

    def check_integrity(self) -> None:
        assert sum(line.heap.live for line in self._lines.values()) == self._live
        queued = {id(line) for _, _, line in self._nodes}
        assert len(queued) == len(self._nodes), "a tenant has two nodes"
        for line in self._lines.values():
            line.heap.check_integrity()
            assert line.queued == (id(line) in queued)
            assert line.heap.live == 0 or line.queued, f"{line.tenant} waits without a node"
