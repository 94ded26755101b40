"""The grant loop: as long as somebody can be served, serve who is first. When and where meet here.

Rules: no clock, no messages of its own (state.py's moves make them). The questions in turn:
1. does a band that uses less than its reserve wait? It goes first, and may call borrowed slots back;
2. with a slot free: the first lane by rank whose head may take it (pools.py, calm.py);
3. with none free: a band that pauses lower ones, then a tenant without backlog beside one that floods (fairness.py);
4. which engine (routing/)? A head that no free engine suits steps aside for this decision and blocks nobody.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from .bands import Band
from .engines import EngineState
from .entry import PARKED, Entry
from .intake import refuse_late
from .routing.filters import not_avoided
from .routing.picker import pick, suits
from .state import QueueState

MAX_PARKED = 8
MAX_PARKED_FULL = 2
MAX_VICTIMS = 16
MAX_LATE = 64
"""Bounds on one decision's work; with nothing free, few may try to call something back."""


SETTLED, STEPPED_ASIDE, CUT_SHORT, FULL = range(4)
"""How it ended: nothing is left to do; nothing free suited some request; a bound was reached; nothing is free, and who
waits may not call anything back."""


def dispatch(state: QueueState, now_s: float) -> int:
    """Grant what can be granted. Returns how it ended."""
    bands, free = state.bands, state.fleet.with_room
    parked: list[Entry] = []
    num_late = 0
    ended = SETTLED
    calm_below = state.calm.strictest(now_s)[0] if state.calm.slowdowns else -1
    while bands.waiting and len(parked) < MAX_PARKED and num_late < MAX_LATE:
        entry, urgent = _below_reserve(state), True
        if entry is None and free:
            entry = _by_rank(state, parked, calm_below)
            if entry is None:
                break
            urgent = state.configs[entry.band].pauses_lower
        elif entry is None:
            entry = _pausing(state)
            if entry is None:
                if not may_favour(state):
                    ended = FULL
                    break
                if not _favour_light(state, now_s):
                    break
                continue
        # While others of its band wait for the same slot, an answer that could be paused should survive a pause.
        room_s = state.outlook.pause_room_s(entry, now_s) if state.backlog.count[entry.band] > 1 else 0.0
        if refuse_late(state, entry, now_s, room_s):
            num_late += 1
            continue
        if urgent:
            engine = _urgent_place(state, entry, now_s)
        elif entry.tenant in state.slots[entry.band].light:
            engine = _light_place(state, entry, 0 <= calm_below < entry.band, now_s)
        else:
            engine = _place(state, entry, 0 <= calm_below < entry.band)
        if engine is not None:
            state.grant(entry, engine, now_s)
            continue
        bands.leave(entry, PARKED)
        parked.append(entry)
        if not free and len(parked) >= MAX_PARKED_FULL:
            break
    for entry in parked:
        bands.add(entry, returning=True)
    return STEPPED_ASIDE if parked else ended if num_late < MAX_LATE else CUT_SHORT


def may_favour(state: QueueState) -> bool:
    """Whether some tenant without backlog waits beside one that floods its band."""
    for slots in state.slots:  # noqa: SIM110 - any() over a generator takes twice as long
        if slots.heavy and slots.light:
            return True
    return False


def _urgent_place(state: QueueState, entry: Entry, now_s: float) -> EngineState | None:
    """For who may call slots back: room to begin at once if any can be had, room to wait inside otherwise."""
    free = state.fleet.with_room
    return (
        (_place(state, entry, True) if free else None)
        or _reclaim(state, entry, _victims(state, entry, now_s), True)
        or (_place(state, entry, False) if free else None)
        or _reclaim(state, entry, _victims(state, entry, now_s), False)
    )


def _light_place(state: QueueState, entry: Entry, calm: bool, now_s: float) -> EngineState | None:
    """For one without backlog: a free slot. Beside a flood, it need not wait inside the engine. `calm`: a higher band
    wants short steps."""
    slots = state.slots[entry.band]
    if len(slots.rows) > 1 and state.config.pause_for_light_tenants:
        engine = _place(state, entry, True)
        if engine is not None:
            return engine
        swap = slots.swap(state.bands.all[entry.band].own, state.pools.recent(entry.band), state.mean_cost)
        if swap is not None and swap[0] is entry:
            engine = _reclaim(state, entry, state.outlook.survivors(swap[1], now_s), True)
            if engine is not None:
                return engine
    return _place(state, entry, calm)


def _below_reserve(state: QueueState) -> Entry | None:
    """The first of a band's own requests while the band uses less than its reserve."""
    pools, bands = state.pools, state.bands.all
    for index in pools.reserving:
        band = bands[index]
        if not band.idle and pools.used[index] < pools.reserve[index]:
            entry = band.head()
            if entry is not None:
                return entry
    return None


def _pausing(state: QueueState) -> Entry | None:
    """The first request of a band that may pause lower ones."""
    for band in state.bands.pausing:
        if state.backlog.count[band.index] and state.pools.may_call_back(band.index):
            entry = band.head()
            if entry is not None:
                return entry
    return None


def _favour_light(state: QueueState, now_s: float) -> bool:
    """Grant to a tenant without backlog in place of one that floods the same band. False: nothing to do."""
    for band, slots in enumerate(state.slots):
        if not slots.heavy or not slots.light or not state.config.pause_for_light_tenants:
            continue
        swap = slots.swap(state.bands.all[band].own, state.pools.recent(band), state.mean_cost)
        if swap is None or state.outlook.slack_s(swap[0], now_s) < 0.0:
            continue
        victims = list(state.outlook.survivors(swap[1], now_s))
        engine = _reclaim(state, swap[0], victims, True) or _reclaim(state, swap[0], victims[:1], False)
        if engine is not None:
            state.grant(swap[0], engine, now_s)
            return True
    return False


def _by_rank(state: QueueState, parked: list[Entry], calm_below: int) -> Entry | None:
    """The first by rank that may take a free slot; those that may not borrow step aside. Bands lower than `calm_below`
    (-1: none) wait while steps are as long as they may be."""
    may_take = state.pools.may_take
    for band in state.bands.all:
        if calm_below >= 0 and calm_below < band.index and not state.fleet.any_calm():
            break
        while not band.idle and (entry := band.head()) is not None:
            aged = band.next_aged() if band.num_aged else None
            if aged is not None and may_take(aged.band, aged.preemptible):
                return aged
            if entry.preemptible or may_take(entry.band, False):
                slots = state.slots[band.index]
                if slots.light and entry.tenant not in slots.light:
                    return _light_first(state, band, entry)
                return entry
            if not band.config.preemptible:
                break  # the whole lane is of that kind
            state.bands.leave(entry, PARKED)
            parked.append(entry)
            if len(parked) >= MAX_PARKED:
                return None
    return None


def _light_first(state: QueueState, band: Band, head: Entry) -> Entry:
    """`head`, of a tenant with backlog, or the request of one without that goes before it."""
    if not state.config.pause_for_light_tenants:
        return head
    light = state.slots[band.index].first(band.own, head, state.mean_cost)
    return light if light is not None and state.pools.may_take(light.band, light.preemptible) else head


def _place(state: QueueState, entry: Entry, at_once: bool) -> EngineState | None:
    """A free slot: where it may begin, or (not `at_once`) wait inside the engine for a step."""
    fleet = state.fleet
    if len(fleet.with_room) == 1 and not entry.avoid:  # mostly: the slot that just fell free
        for engine in fleet.with_room.values():
            fits = engine.has_room(entry.wanted_tokens, at_once) and suits(entry, engine, state.pool_of)
            return engine if fits else None
    return pick(entry, fleet.engines.values(), state.pool_of, state.prefixes, at_once)


def _victims(state: QueueState, entry: Entry, now_s: float) -> Iterable[Entry]:
    """Whom `entry` may pause, those on replicas of its own pool first. Who would miss its deadline for it runs on, but
    where `entry` asks for its band's reserve: then those come last."""
    victims = islice(state.pools.victims(entry.band), MAX_VICTIMS)
    victims = state.outlook.survivors(victims, now_s, others_too=state.pools.below_reserve(entry.band))
    if not state.pools.own_slots[entry.band]:
        return victims
    name = state.configs[entry.band].name
    return sorted(victims, key=lambda v: v.engine is None or v.engine.pool != name)


def _reclaim(state: QueueState, entry: Entry, victims: Iterable[Entry], at_once: bool) -> EngineState | None:
    """Call back as few of `victims` (best first) as make room for `entry` on one engine. The grant does not wait
    for them to leave: the engine holds one stream more for the millisecond that their gateways need."""
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
        if engine.used - len(plan) < (engine.capacity_at_once if at_once else engine.capacity) and fits:
            for leaver in plan:
                state.call_back(leaver)
            return engine
    return None
