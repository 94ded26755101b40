"""The queue's state as operators see it (stats.py), read off without changing anything.

Rules: reads only; O(bands + engines + tenants with a name), called every few seconds by every gateway: never a look
at each entry, which would stop the queue while 100,000 wait.
"""

from __future__ import annotations

from copy import copy

from .light import TenantShare
from .state import QueueState
from .stats import BandView, EngineView, QueueSnapshot, TenantView, cumulative
from .tenants import OTHER


def snapshot(state: QueueState, model: str, now_s: float) -> QueueSnapshot:
    """One consistent picture."""
    return QueueSnapshot(
        model=model,
        bands=_bands(state, now_s),
        engines=tuple(
            EngineView(
                e.engine_id, e.pool, e.epoch, e.up, e.draining, e.capacity, e.model.lookahead, e.model.max_num_seqs,
                e.used, e.foreign, e.kv_reserved, e.kv_tokens, e.model.fit.mean_step_s, e.node,
            )
            for e in state.fleet.engines.values()
        ),
        tenants=_tenants(state, now_s),
        capacity_slots=state.pools.capacity,
        borrowed_slots=state.pools.borrowed,
        unreserved_slots=state.pools.unreserved,
        saturation=(sum(state.pools.used) + state.bands.waiting) / max(1, state.pools.capacity),
        served_cost_per_s=state.rate.per_s,
        gateways=len(state.gateways),
        ordering=state.config.ordering,
        pools=tuple(map(copy, state.costs.pools.values())),
        currency=state.config.currency,
    )  # fmt: skip


def _bands(state: QueueState, now_s: float) -> tuple[BandView, ...]:
    return tuple(
        BandView(
            config.name, config.rank, state.backlog.count[i], state.backlog.tokens[i],
            state.slots[i].ages.oldest_s(now_s), state.pools.used[i], state.pools.reserve[i], c.registered, c.granted,
            c.completed, c.cancelled, c.preempted, c.resumed, c.shed, dict(c.refused), c.wait_sum_s,
            cumulative(c.wait_buckets),
        )
        for i, (config, c) in enumerate(zip(state.configs, state.counts, strict=True))
    )  # fmt: skip


def _tenants(state: QueueState, now_s: float) -> tuple[TenantView, ...]:
    """Named tenants, then per band all others together: the band's figures less those of its named tenants."""
    views: list[TenantView] = []
    for (tenant, band), c in state.tenants.named.items():
        row = state.slots[band].rows.get(tenant) or TenantShare()
        views.append(
            TenantView(
                tenant, state.configs[band].name, row.waiting, row.waiting_tokens, row.running,
                now_s - row.since_s if row.waiting else 0.0, state.bands.all[band].own.counter_of(tenant),
                c.registered, c.granted, c.preempted, c.wait_sum_s, dict(c.refused), c.cost,
            )
        )  # fmt: skip
    if len(views) < state.tenants.max_named:
        return tuple(views)
    for b, band in enumerate(state.counts):
        mine = [view for view in views if view.band == state.configs[b].name]
        refused = {
            reason: count - sum(view.refused.get(reason, 0) for view in mine)
            for reason, count in band.refused.items()
        }
        views.append(
            TenantView(
                OTHER, state.configs[b].name, state.backlog.count[b] - sum(v.waiting for v in mine),
                state.backlog.tokens[b] - sum(v.waiting_tokens for v in mine),
                state.pools.used[b] - sum(v.running for v in mine), 0.0, 0.0,
                band.registered - sum(v.registered for v in mine), band.granted - sum(v.granted for v in mine),
                band.preempted - sum(v.preempted for v in mine), band.wait_sum_s - sum(v.wait_sum_s for v in mine),
                refused, max(0.0, band.cost - sum(v.cost for v in mine)),
            )
        )  # fmt: skip
    return tuple(views)
