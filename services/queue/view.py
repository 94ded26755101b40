"""The queue's state as operators see it (stats.py), read off without changing anything.

Rules: reads only; O(bands + engines + tenants shown), called about once a second.
"""

from __future__ import annotations

from heapq import nlargest

from .entry import LEASED, WAITING
from .state import QueueState
from .stats import MAX_TENANT_LABELS, BandView, EngineView, QueueSnapshot, TenantView, cumulative

OTHER = "other"


def snapshot(state: QueueState, model: str, now_s: float) -> QueueSnapshot:
    """One consistent picture."""
    return QueueSnapshot(
        model=model,
        bands=_bands(state, now_s),
        engines=tuple(
            EngineView(
                e.engine_id, e.pool, e.epoch, e.up, e.draining, e.capacity, e.model.lookahead, e.model.max_num_seqs,
                e.used, e.foreign, e.kv_reserved, e.kv_tokens, e.model.fit.mean_step_s,
            )
            for e in state.fleet.engines.values()
        ),
        tenants=_tenants(state),
        capacity_slots=state.pools.capacity,
        borrowed_slots=state.pools.borrowed,
        unreserved_slots=state.pools.unreserved,
        saturation=(sum(state.pools.used) + state.bands.waiting) / max(1, state.pools.capacity),
        served_cost_per_s=state.rate.per_s,
        gateways=len(state.gateways),
        ordering=state.config.ordering,
    )  # fmt: skip


def _bands(state: QueueState, now_s: float) -> tuple[BandView, ...]:
    oldest = [0.0] * len(state.configs)
    for table in state.gateways.values():
        for entry in table.values():
            if entry.state == WAITING and now_s - entry.arrived_s > oldest[entry.band]:
                oldest[entry.band] = now_s - entry.arrived_s
    return tuple(
        BandView(
            config.name, config.rank, state.backlog.count[i], state.backlog.tokens[i], oldest[i], state.pools.used[i],
            state.pools.reserve[i], c.registered, c.granted, c.completed, c.cancelled, c.preempted, c.resumed, c.shed,
            dict(c.refused), c.wait_sum_s, cumulative(c.wait_buckets),
        )
        for i, (config, c) in enumerate(zip(state.configs, state.counts, strict=True))
    )  # fmt: skip


def _tenants(state: QueueState) -> tuple[TenantView, ...]:
    """The busiest tenants by what waits and runs; the rest as one row, so that labels stay bounded."""
    rows: dict[tuple[str, int], list[float]] = {}
    for table in state.gateways.values():
        for entry in table.values():
            row = rows.setdefault((entry.tenant, entry.band), [0, 0, 0])
            if entry.state == WAITING:
                row[0] += 1
                row[1] += entry.wanted_tokens
            elif entry.state == LEASED:
                row[2] += 1
    served: list[dict[str, float]] = []
    for band in state.bands.all:
        counters = getattr(band.own, "counters", None)  # only fair orderings keep accounts
        served.append(counters() if counters is not None else {})
    for b, accounts in enumerate(served):
        for tenant in nlargest(MAX_TENANT_LABELS, accounts, key=lambda t: accounts[t]):
            rows.setdefault((tenant, b), [0, 0, 0])
    busiest = nlargest(
        MAX_TENANT_LABELS, rows, key=lambda k: (rows[k][0] + rows[k][2], served[k[1]].get(k[0], 0.0))
    )
    views = [
        TenantView(
            t,
            state.configs[b].name,
            int(rows[t, b][0]),
            int(rows[t, b][1]),
            int(rows[t, b][2]),
            served[b].get(t, 0.0),
        )
        for t, b in busiest
    ]
    rest = [key for key in rows if key not in set(busiest)] if len(rows) > len(busiest) else []
    if rest:
        sums = [int(sum(rows[key][i] for key in rest)) for i in range(3)]
        views.append(
            TenantView(OTHER, "", sums[0], sums[1], sums[2], sum(served[b].get(t, 0.0) for t, b in rest))
        )
    return tuple(views)
