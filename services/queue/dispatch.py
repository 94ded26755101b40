"""The grant loop: as long as somebody can be served, serve who is first. When and where meet here.

Rules: no clock, no messages of its own (state.py's moves make them). The questions in turn:
1. does a band that uses less than its reserve wait? It goes first, and may call borrowed slots back;
2. with a slot free: the first lane by rank whose head may take it (pools.py);
3. with none free: a band that pauses lower ones, then a tenant without backlog beside one that floods (fairness.py);
4. which engine (routing/)? A head that no free engine suits steps aside for this decision and blocks nobody.
"""

from __future__ import annotations

from ..outcome import Reason
from .engines import EngineState
from .entry import PARKED, Entry
from .routing.filters import not_avoided
from .routing.picker import pick, suits
from .state import QueueState

MAX_PARKED = 8
MAX_VICTIMS = 16
"""Bounds on one decision's work."""


def dispatch(state: QueueState, now_s: float) -> bool:
    """Grant what can be granted. Returns True when some request had to step aside (nothing free suited it)."""
    bands, fleet = state.bands, state.fleet
    parked: list[Entry] = []
    while bands.waiting and len(parked) < MAX_PARKED:
        free = fleet.any_free()
        entry = _below_reserve(state)
        calls_back = entry is not None or not free
        if entry is None:
            entry = _by_rank(state, parked) if free else _pausing(state)
        if entry is None:
            if free or not _favour_light(state, now_s):
                break
            continue
        if entry.deadline_s <= now_s:
            state.refuse(entry, Reason.DEADLINE_EXCEEDED, "the deadline passed in the queue")
            continue
        engine = pick(entry, fleet.engines.values(), state.pool_of, state.prefixes) if free else None
        if engine is None and calls_back:
            engine = _reclaim(state, entry, state.pools.victims(entry.band, MAX_VICTIMS))
        if engine is None:
            bands.take(entry)
            entry.state = PARKED
            parked.append(entry)
            continue
        _advance_turn(state, entry)
        bands.take(entry)
        state.grant(entry, engine, now_s)
    for entry in parked:
        bands.put_back(entry)
    return bool(parked)


def _below_reserve(state: QueueState) -> Entry | None:
    """The first of a band's own requests while the band uses less than its reserve."""
    used, reserve = state.pools.used, state.pools.reserve
    for band in state.bands.all:
        if used[band.index] < reserve[band.index]:
            entry = band.own.peek()
            if entry is not None:
                return entry
    return None


def _pausing(state: QueueState) -> Entry | None:
    """The first request of a band that may pause lower ones."""
    for band in state.bands.all:
        if band.config.pauses_lower and len(band.own) and state.pools.may_call_back(band.index):
            return band.own.peek()
    return None


def _favour_light(state: QueueState, now_s: float) -> bool:
    """Grant to a tenant without backlog in place of one that floods the same band. False: nothing to do."""
    if not state.config.pause_for_light_tenants:
        return False
    for band in state.bands.all:
        slots = state.slots[band.index]
        if not slots.light or len(slots.rows) == 1:
            continue
        swap = slots.swap(band.own, state.pools.recent(band.index), state.mean_cost)
        if swap is None or swap[0].deadline_s <= now_s:
            continue
        engine = _reclaim(state, swap[0], [swap[1]])
        if engine is not None:
            state.bands.take(swap[0])
            state.grant(swap[0], engine, now_s)
            return True
    return False


def _by_rank(state: QueueState, parked: list[Entry]) -> Entry | None:
    """The first by rank that may take a free slot; those that may not borrow step aside."""
    may_take = state.pools.may_take
    for band in state.bands.all:
        while len(parked) < MAX_PARKED:
            first, second = band.heads()
            if first is None:
                break
            if may_take(first.band, first.preemptible):
                slots = state.slots[band.index]
                if slots.light and first.level == first.band and state.config.pause_for_light_tenants:
                    light = slots.first(band.own, first, state.mean_cost)
                    if light is not None and may_take(light.band, light.preemptible):
                        return light
                return first
            if second is not None and may_take(second.band, second.preemptible):
                return second
            if not state.configs[first.band].preemptible and second is None:
                break  # the whole lane is of that kind
            state.bands.take(first)
            first.state = PARKED
            parked.append(first)
    return None


def _advance_turn(state: QueueState, entry: Entry) -> None:
    band = state.bands.all[entry.level]
    if len(band.own) and len(band.aged):
        band.turn += 1


def _reclaim(state: QueueState, entry: Entry, victims: list[Entry]) -> EngineState | None:
    """Call back as few of `victims` (best first) as make room for `entry` on one engine. The grant does not wait for them to
    leave: the engine holds one stream more for the millisecond that their gateways need."""
    plans: dict[int, list[Entry]] = {}
    for victim in victims:
        engine = victim.engine
        if engine is None or not suits(entry, engine, state.pool_of):
            continue
        if entry.avoid and not not_avoided(entry, engine) and len(state.fleet.engines) > 1:
            continue
        plan = plans.setdefault(engine.bit, [])
        plan.append(victim)
        tokens = engine.kv_reserved - sum(v.wanted_tokens for v in plan) + entry.wanted_tokens
        fits = tokens <= engine.kv_budget or engine.used == len(plan)
        if engine.used - len(plan) < engine.capacity and fits:
            for leaver in plan:
                state.call_back(leaver)
            return engine
    return None
