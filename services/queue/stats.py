"""What operators see of the queue: counts, waits and shares as plain values.

Rules: counting only; no metrics library, no labels without a bound. telemetry/ and `expertmesh queue` render this.
"""

from __future__ import annotations

from bisect import bisect_left

import msgspec

from .costs import PoolCost

WAIT_BOUNDS_S = (
    0.001,
    0.002,
    0.005,
    0.01,
    0.02,
    0.05,
    0.1,
    0.2,
    0.5,
    1.0,
    2.0,
    5.0,
    10.0,
    30.0,
    60.0,
    120.0,
    300.0,
    600.0,
)


class BandCounts:
    """Counters of one band since the start; they only grow."""

    def __init__(self) -> None:
        self.registered = 0
        self.granted = 0
        self.completed = 0
        self.cancelled = 0
        self.preempted = 0
        self.resumed = 0
        self.shed = 0
        self.cost = 0.0
        self.refused: dict[str, int] = {}
        self.wait_sum_s = 0.0
        self.wait_buckets = [0] * (len(WAIT_BOUNDS_S) + 1)

    def waited(self, wait_s: float) -> None:
        self.granted += 1
        self.wait_sum_s += wait_s
        self.wait_buckets[bisect_left(WAIT_BOUNDS_S, wait_s)] += 1

    def refuse(self, reason: str) -> None:
        self.refused[reason] = self.refused.get(reason, 0) + 1


class TenantCounts:
    """Counters of one tenant in one band, as long as it has a name (tenants.py)."""

    __slots__ = ("cost", "granted", "preempted", "refused", "registered", "wait_sum_s")

    def __init__(self) -> None:
        self.registered = 0
        self.granted = 0
        self.preempted = 0
        self.wait_sum_s = self.cost = 0.0
        self.refused: dict[str, int] = {}

    def refuse(self, reason: str) -> None:
        self.refused[reason] = self.refused.get(reason, 0) + 1


class BandView(msgspec.Struct, frozen=True):
    """One band now. `wait_buckets` are cumulative counts for `WAIT_BOUNDS_S` (and +Inf), as histograms want them."""

    name: str
    rank: int
    waiting: int
    waiting_tokens: int
    oldest_age_s: float
    running: int
    reserved_slots: int
    registered: int
    granted: int
    completed: int
    cancelled: int
    preempted: int
    resumed: int
    shed: int
    refused: dict[str, int]
    wait_sum_s: float
    wait_buckets: tuple[int, ...]


class EngineView(msgspec.Struct, frozen=True):
    """One engine now. `depth` is the learnt one, `lookahead` the part of it that waits inside for less than a step.
    `node`: its machine, as the cloud calls it."""

    engine_id: str
    pool: str
    epoch: int
    up: bool
    draining: bool
    depth: int
    lookahead: int
    max_num_seqs: int
    running: int
    foreign: int
    kv_reserved_tokens: int
    kv_tokens: int
    step_s: float
    node: str = ""


class TenantView(msgspec.Struct, frozen=True):
    """One tenant in one band; those without a name of their own (tenants.py) are one row, "other", per band.
    `backlog_age_s`: it has waited without a break for so long, longer than its oldest request. `served_cost` is the
    account of token fairness. Both are 0 for "other". `cost`: what its leases used of engines, in money."""

    tenant: str
    band: str
    waiting: int
    waiting_tokens: int
    running: int
    backlog_age_s: float
    served_cost: float
    registered: int
    granted: int
    preempted: int
    wait_sum_s: float
    refused: dict[str, int]
    cost: float = 0.0


class QueueSnapshot(msgspec.Struct, frozen=True):
    """The whole queue of one model, or of one revision of it: `share` of all sessions, `ended` streams, `lost` ones
    among them."""

    model: str
    bands: tuple[BandView, ...]
    engines: tuple[EngineView, ...]
    tenants: tuple[TenantView, ...]
    capacity_slots: int
    borrowed_slots: int
    unreserved_slots: int
    saturation: float
    served_cost_per_s: float
    gateways: int
    ordering: str
    revision: str = ""
    share: float = 1.0
    ended: int = 0
    lost: int = 0
    pools: tuple[PoolCost, ...] = ()
    currency: str = ""


def cumulative(buckets: list[int]) -> tuple[int, ...]:
    total, out = 0, []
    for count in buckets:
        total += count
        out.append(total)
    return tuple(out)


def quantile_s(buckets: tuple[int, ...], share: float) -> float:
    """Upper bound of the bucket that holds the quantile; 0 without data, infinity above the last bound."""
    if not buckets or not buckets[-1]:
        return 0.0
    place = bisect_left(buckets, share * buckets[-1])
    return WAIT_BOUNDS_S[place] if place < len(WAIT_BOUNDS_S) else float("inf")
